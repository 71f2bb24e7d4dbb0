#include "sim/world.h"

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"
#include "sim/faults.h"
#include "sim/shrink.h"

namespace lockstep::sim {
namespace {

Report run_seed(std::uint64_t seed) {
  Options options;
  options.seed = seed;
  return run(options);
}

std::string told(const Report& report) {
  std::string out = cat("seed ", report.seed, ":");
  for (const std::string& each : report.violations) out += cat("\n", each);
  return out;
}

void expect_good(const Report& report) {
  EXPECT_TRUE(report.violations.empty()) << told(report);
  EXPECT_GE(report.simulated_s, 60) << told(report);
  EXPECT_GE(report.operations, 50u) << told(report);
  EXPECT_GE(report.transactions, 200u) << told(report);
  EXPECT_GT(report.completed, 0u) << told(report);
}

TEST(World, the_same_seed_gives_the_same_trace) {
  const Report first = run_seed(42);
  const Report second = run_seed(42);
  EXPECT_EQ(first.trace_hash, second.trace_hash);
  EXPECT_EQ(first.commits, second.commits);
  EXPECT_EQ(first.operations, second.operations);
  EXPECT_EQ(first.faults, second.faults);
  expect_good(first);
}

TEST(World, different_seeds_give_different_traces) { EXPECT_NE(run_seed(42).trace_hash, run_seed(43).trace_hash); }

TEST(World, faults_really_happen_and_can_be_left_out) {
  const Report with = run_seed(42);
  std::uint64_t met = 0;
  for (const std::string_view name : fault_names) {
    ASSERT_TRUE(with.faults.contains(std::string(name))) << name;  // counted, also when it was not met
    if (with.faults.at(std::string(name)) > 0) ++met;
  }
  EXPECT_GE(met, 15u) << "of " << fault_names.size();
  Options options;
  options.seed = 42;
  options.faults = false;
  const Report without = run(options);
  for (const auto& [kind, count] : without.faults) {
    // In peace too guests come, and an image that fails its gate takes others with it.
    if (kind == "guest_joined" || kind == "guest_worked" || kind == "output_rolled_back") continue;
    EXPECT_EQ(count, 0u) << kind;
  }
  expect_good(without);
}

TEST(World, only_the_faults_that_were_asked_for_happen) {
  Options options;
  std::uint64_t cuts = 0;
  for (options.seed = 1; options.seed <= 4; ++options.seed) {
    options.only = {"link_cut"};
    const Report report = run(options);
    expect_good(report);
    cuts += report.faults.at("link_cut");
    for (const auto& [name, number] : report.met) EXPECT_EQ(name, "link_cut");
    EXPECT_EQ(report.faults.at("orchestrator_crash") + report.faults.at("worker_killed"), 0u);
  }
  EXPECT_GT(cuts, 0u);
}

TEST(World, safety_ends_with_its_time_and_liveness_with_rest) {
  Options options;
  for (options.seed = 1; options.seed <= 3; ++options.seed) {
    options.mode = Mode::safety;
    const Report safe = run(options);
    EXPECT_TRUE(safe.violations.empty()) << told(safe);
    EXPECT_EQ(safe.simulated_s, 60) << told(safe);
    EXPECT_GT(safe.faults.at("orchestrator_crash") + safe.faults.at("worker_killed"), 0u) << told(safe);
    options.mode = Mode::liveness;
    const Report live = run(options);
    expect_good(live);
    EXPECT_EQ(live.trace_hash, run_seed(options.seed).trace_hash) << "it looks at less, and changes nothing";
  }
}

// With no time to come to rest some seeds do not: the sentence that is not kept has its name.
TEST(World, what_is_not_kept_after_the_faults_is_named) {
  Options options;
  options.duration = seconds(6);  // while they work
  options.rest_limit = 0;
  std::set<std::string> named;
  for (options.seed = 1; options.seed <= 12; ++options.seed) {
    const std::string said = first_violation(run(options));
    for (const char* sentence : {"L1", "L2", "L5"}) {
      const std::size_t at = said.find(sentence);
      if (at != std::string::npos && at < said.find(": not at rest")) named.insert(sentence);
    }
    options.mode = Mode::safety;
    EXPECT_TRUE(run(options).violations.empty()) << options.seed;
    options.mode = Mode::both;
  }
  EXPECT_TRUE(named.contains("L2")) << "open jobs";
  EXPECT_TRUE(named.contains("L5")) << "answers that are due";
}

// A seed that failed once stays.
TEST(World, every_seed_that_failed_once_passes) {
  std::ifstream file(LOCKSTEP_SOURCE_DIR "/sim/seeds.txt");
  ASSERT_TRUE(file.is_open());
  std::size_t seeds = 0;
  std::string line;
  while (std::getline(file, line)) {
    const std::string text = line.substr(0, line.find('#'));
    std::istringstream words(text);
    std::uint64_t seed = 0;
    if (!(words >> seed)) {
      EXPECT_EQ(text.find_first_not_of(" \t"), std::string::npos) << line;
      continue;
    }
    EXPECT_NE(line.find('#'), std::string::npos) << "a seed says why it is here: " << line;
    expect_good(run_seed(seed));
    ++seeds;
  }
  EXPECT_GT(seeds, 0u);
}

}  // namespace
}  // namespace lockstep::sim
