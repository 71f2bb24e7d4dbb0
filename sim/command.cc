#include "sim/command.h"

#include <chrono>
#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "events/json_write.h"
#include "sim/faults.h"
#include "sim/world.h"

namespace lockstep::sim {

namespace {

struct Row {
  std::string name;
  std::string unit;
  double value = 0;
  std::string better;
};
BOOST_DESCRIBE_STRUCT(Row, (), (name, unit, value, better))

/// The object every bench prints (design §8), with the simulator's own members.
struct Summary {
  std::string bench = "sim";
  std::vector<Row> rows;
  std::uint64_t runs = 0;
  double simulated_s = 0;
  std::uint64_t operations = 0;
  std::uint64_t commits = 0;
  std::uint64_t transactions = 0;
  std::uint64_t rejoins = 0;
  std::uint64_t segments_adopted = 0;
  std::uint64_t requests_completed = 0;
  std::uint64_t requests_failed = 0;
  std::map<std::string, std::uint64_t> faults;
  std::vector<std::string> faults_missed;
  std::vector<std::string> violations;
  std::optional<std::string> trace_hash;  // of a single seed
};
BOOST_DESCRIBE_STRUCT(Summary, (),
                      (bench, rows, runs, simulated_s, operations, commits, transactions, rejoins, segments_adopted,
                       requests_completed, requests_failed, faults, faults_missed, violations, trace_hash))

std::string hex(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

}  // namespace

struct Command::State {
  CLI::App* app = nullptr;
  std::uint64_t seed = 0;
  std::string seeds;
  double wall_s = 0;
  bool json = false;
  bool no_faults = false;
  bool require_faults = false;
  bool trace = false;
};

Command::Command(CLI::App& app) : state_(std::make_unique<State>()) {
  state_->app = app.add_subcommand("sim", "run the orchestrator and two workers in a simulated world, from a seed");
  auto* one = state_->app->add_option("--seed", state_->seed, "one seed; prints its trace hash");
  auto* many = state_->app->add_option("--seeds", state_->seeds, "a range of seeds, A..B");
  one->excludes(many);
  state_->app->add_option("--wall", state_->wall_s,
                          "stop after so many seconds of real time, however far the range got");
  state_->app->add_flag("--json", state_->json, "print one object");
  state_->app->add_flag("--no-faults", state_->no_faults, "a peaceful world");
  state_->app->add_flag("--require-faults", state_->require_faults,
                        cat("fail when a fault was never met; without it from ", seeds_for_every_fault, " seeds on"));
  state_->app->add_flag("--trace", state_->trace, "print every event to stderr");
}
Command::~Command() = default;

std::optional<int> Command::run() {
  if (!state_->app->parsed()) return std::nullopt;
  std::uint64_t first = state_->seed == 0 ? 1 : state_->seed;
  std::uint64_t last = first;
  if (!state_->seeds.empty()) {
    const std::size_t dots = state_->seeds.find("..");
    try {
      first = std::stoull(state_->seeds.substr(0, dots));
      last = dots == std::string::npos ? first : std::stoull(state_->seeds.substr(dots + 2));
    } catch (const std::exception&) {
      std::cerr << "lockstep sim: --seeds is \"" << state_->seeds << "\"; expected A..B, as in 1..100\n";
      return 2;
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  Summary summary;
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    if (state_->wall_s > 0 && elapsed() > state_->wall_s) break;
    const Report report = sim::run({.seed = seed, .faults = !state_->no_faults, .trace = state_->trace});
    ++summary.runs;
    summary.simulated_s += report.simulated_s;
    summary.operations += report.operations;
    summary.commits += report.commits;
    summary.transactions += report.transactions;
    summary.rejoins += report.rejoins;
    summary.segments_adopted += report.segments_adopted;
    summary.requests_completed += report.completed;
    summary.requests_failed += report.failed;
    for (const auto& [kind, count] : report.faults) summary.faults[kind] += count;
    summary.violations.insert(summary.violations.end(), report.violations.begin(), report.violations.end());
    if (first == last) summary.trace_hash = hex(report.trace_hash);
    if (!report.violations.empty() && !state_->json) {
      std::cerr << report.violations.front() << "\n  again: lockstep sim --seed " << seed << " --trace\n";
    }
  }
  const double wall = elapsed();
  const bool require = state_->require_faults || summary.runs >= seeds_for_every_fault;
  for (const auto& [kind, count] : summary.faults) {
    if (require && !state_->no_faults && count == 0) summary.faults_missed.push_back(kind);
  }
  for (const std::string& kind : summary.faults_missed) {
    std::cerr << "lockstep sim: the fault " << kind << " was never met in " << summary.runs << " seeds\n";
  }
  summary.rows.push_back({"simulated_per_real", "s/s", summary.simulated_s / wall, "higher"});
  summary.rows.push_back({"seeds_per_s", "1/s", static_cast<double>(summary.runs) / wall, "higher"});
  if (state_->json) {
    std::cout << json::to_text(summary) << "\n";
  } else {
    std::cout << summary.runs << " seeds, " << static_cast<std::uint64_t>(summary.simulated_s) << " simulated s in "
              << wall << " s: " << summary.operations << " operations, " << summary.transactions
              << " load transactions, " << summary.commits << " commits, " << summary.rejoins << " rejoins, "
              << summary.segments_adopted << " segments taken back, " << summary.requests_completed
              << " requests completed, " << summary.requests_failed << " failed with a reason\nfaults:";
    for (const auto& [kind, count] : summary.faults) std::cout << " " << kind << " " << count;
    std::cout << "\nviolations: " << summary.violations.size() << "\n";
    if (summary.trace_hash) std::cout << "trace hash: " << *summary.trace_hash << "\n";
  }
  return summary.violations.empty() && summary.faults_missed.empty() ? 0 : 1;
}

}  // namespace lockstep::sim
