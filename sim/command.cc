#include "sim/command.h"

#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>
#include <tuple>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "env/real/this_machine.h"
#include "events/json_write.h"
#include "sim/exhaustive.h"
#include "sim/faults.h"
#include "sim/script.h"
#include "sim/shrink.h"
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
  MachineFacts machine;
  std::vector<Row> rows;
  std::uint64_t runs = 0;
  std::uint64_t audited = 0;  // of these, run twice and compared
  double simulated_s = 0;
  std::uint64_t operations = 0;
  std::uint64_t commits = 0;
  std::uint64_t transactions = 0;
  std::uint64_t transactions_aborted = 0;
  std::uint64_t transactions_min = 0;  // of one seed
  std::uint64_t commits_spanning = 0;  // of the transactions, commits of two domains or more
  std::uint64_t protocol_runs = 0;     // loads, aborts, images and rollbacks: what a protocol led
  std::uint64_t loads = 0;
  std::uint64_t images = 0;
  std::uint64_t rollbacks = 0;
  std::uint64_t rejoins = 0;
  std::uint64_t segments_adopted = 0;
  std::uint64_t requests_completed = 0;
  std::uint64_t requests_failed = 0;
  std::map<std::string, std::uint64_t> faults;
  std::vector<std::string> faults_missed;
  std::optional<std::string> faults_not_judged;  // why nobody looked for those that never struck
  std::vector<std::string> violations;
  std::optional<std::string> trace_hash;  // of a single seed
};
BOOST_DESCRIBE_STRUCT(Summary, (),
                      (bench, machine, rows, runs, audited, simulated_s, operations, commits, transactions,
                       transactions_aborted, transactions_min, commits_spanning, protocol_runs, loads, images,
                       rollbacks, rejoins, segments_adopted, requests_completed, requests_failed, faults, faults_missed,
                       faults_not_judged, violations, trace_hash))

std::string hex(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

/// S24: so many seeds in a hundred are run twice, and must leave the same trace.
constexpr std::uint64_t audit_every = 20;

/// "3/16" -> 3, 16.
std::optional<std::pair<std::uint64_t, std::uint64_t>> part_of(const std::string& text) {
  const char* const end = text.data() + text.size();
  std::uint64_t part = 0;
  std::uint64_t parts = 0;
  const auto first = std::from_chars(text.data(), end, part);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != '/') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, parts);
  if (second.ec != std::errc{} || second.ptr != end || part < 1 || part > parts || parts > 1000) return std::nullopt;
  return std::pair(part, parts);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) out.push_back(word);
  return out;
}

/// A sentence when one of the two cannot be read.
std::optional<std::string> read_faults(const std::string& faults, const std::string& just, Options& options) {
  options.faults = faults != "none";
  for (const std::string& name : faults == "all" || faults == "none" ? std::vector<std::string>() : split(faults)) {
    if (std::ranges::find(fault_names, name) == fault_names.end()) {
      std::string known;
      for (const std::string_view each : fault_names) known += cat(known.empty() ? "" : ", ", each);
      return cat("--faults names \"", name, "\"; expected all, none or some of: ", known);
    }
    options.only.insert(name);
    for (const auto& [effect, cause] : fault_causes) {
      if (effect == name) options.only.insert(std::string(cause));
    }
  }
  if (just.empty()) return std::nullopt;
  options.just.emplace();
  for (const std::string& each : split(just)) {
    const std::size_t colon = each.find(':');
    const std::string name = each.substr(0, colon);
    std::uint64_t number = 0;
    const std::string_view digits = colon == std::string::npos ? "" : std::string_view(each).substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), number);
    if (std::ranges::find(fault_names, name) == fault_names.end() || error != std::errc() || end != digits.end()) {
      return cat("--just has \"", each, "\"; expected NAME:NUMBER with a fault's name, as in link_cut:2");
    }
    options.just->emplace(name, number);
  }
  return std::nullopt;
}

/// What a repetition must be told beside the seed, and beside the faults.
std::string said_of(const Options& options) {
  switch (options.mode) {
    case Mode::both: break;
    case Mode::safety: return " --mode safety";
    case Mode::liveness: return " --mode liveness";
  }
  return "";
}

void print_shrunk(const Options& options) {
  const auto shrunk = shrink(options, first_violation);
  if (!shrunk) return;
  std::string list;
  for (const auto& [name, number] : shrunk->kept) list += cat(list.empty() ? "" : ",", name, ":", number);
  std::cerr << "  after " << shrunk->runs << " runs " << shrunk->kept.size() << " faults are left: " << shrunk->what
            << "\n  again: lockstep sim --seed " << options.seed << said_of(options)
            << (list.empty() ? " --no-faults" : cat(" --just ", list)) << " --trace\n";
}

}  // namespace

struct Command::State {
  CLI::App* app = nullptr;
  std::uint64_t seed = 0;
  std::string seeds;
  double wall_s = 0;
  std::uint64_t seeds_min = 0;
  bool json = false;
  bool no_faults = false;
  std::string faults = "all";
  std::string just;
  std::string mode = "both";
  bool shrink = false;
  bool require_faults = false;
  bool trace = false;
  bool exhaustive = false;
  std::string script;
  std::string crash;
  int depth = 2;
  std::uint64_t every = 1;
  std::string part = "1/1";

  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); }
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  int exhaust() const;
  int run_script() const;
};

Command::Command(CLI::App& app) : state_(std::make_unique<State>()) {
  state_->app = app.add_subcommand("sim", "run the orchestrator and two workers in a simulated world, from a seed");
  auto* one = state_->app->add_option("--seed", state_->seed, "one seed; prints its trace hash");
  auto* many = state_->app->add_option("--seeds", state_->seeds, "a range of seeds, A..B");
  one->excludes(many);
  state_->app->add_option("--wall", state_->wall_s,
                          "stop after so many seconds of real time, however far the range got");
  state_->app->add_option("--seeds-min", state_->seeds_min, "with --wall: so many seeds before it stops the run");
  state_->app->add_flag("--json", state_->json, "print one object");
  auto* none = state_->app->add_flag("--no-faults", state_->no_faults, "a peaceful world: --faults none");
  state_->app->add_option("--faults", state_->faults, "all, none, or the names of those that may happen, with commas")
      ->excludes(none);
  state_->app->add_option("--just", state_->just, "of what was drawn, these happen alone: NAME:NUMBER,NAME:NUMBER");
  auto* mode =
      state_->app
          ->add_option(
              "--mode", state_->mode,
              "safety: judged after every event, ends with its time, faults and all; liveness: faults stop, and "
              "L1, L2, L5, L6 must hold; both")
          ->check(CLI::IsMember({"both", "safety", "liveness"}));
  state_->app->add_flag("--shrink", state_->shrink, "of a seed that fails, the fewest faults that still make it fail")
      ->excludes(many);
  state_->app->add_flag("--require-faults", state_->require_faults,
                        cat("fail when a fault was never met; without it from ", seeds_for_every_fault, " seeds on"));
  state_->app->add_flag("--trace", state_->trace, "print every event to stderr");
  auto* small = state_->app->add_flag("--exhaustive", state_->exhaustive,
                                      "scripts of at most three operations, ended at every point of each");
  small->excludes(many)->excludes(none)->excludes(mode);
  std::string names;
  for (const Script& each : scripts()) names += cat("\n  ", each.name, ": ", each.says);
  state_->app->add_option("--script", state_->script, cat("of --exhaustive, only this one:", names))->needs(small);
  state_->app
      ->add_option("--crash", state_->crash,
                   "one run of a script, which ends there: orchestrator:N, power:N, kept:N, lost:N, worker_0:N, "
                   "worker_1:N, or the N-th message cut:N or delayed:N; and after a comma where the next life ends")
      ->needs("--script");
  state_->app
      ->add_option("--depth", state_->depth, "1: one end a run; 2: scripts of one operation end in the recovery again")
      ->check(CLI::Range(1, 2))
      ->needs(small);
  state_->app->add_option("--every", state_->every, "only the first of so many points, and the first of the next ones")
      ->check(CLI::Range(1, 1000))
      ->needs(small);
  state_->app
      ->add_option("--part", state_->part, "K/N: one of N parts, which together try everything; for N processors")
      ->needs(small);
}
Command::~Command() = default;

int Command::State::exhaust() const {
  ExhaustiveOptions options;
  if (seed != 0) options.seed = seed;
  if (!script.empty()) options.scripts = {script};
  options.depth = depth;
  options.every = every;
  const auto shares = part_of(part);
  if (!shares) {
    std::cerr << "lockstep sim: --part is \"" << part << "\"; expected K/N, K from 1 to N, N up to 1000\n";
    return 2;
  }
  std::tie(options.part, options.parts) = *shares;
  if (wall_s > 0) options.go_on = [this] { return elapsed() < wall_s; };
  options.done = [this](const ScriptReport& done) {
    std::cerr << "sim: " << done.script << ":";
    for (const auto& [where, count] : done.points) std::cerr << " " << count << " points of " << where << ",";
    std::cerr << " " << done.runs << " runs (" << done.pairs << " with two ends), " << static_cast<int>(elapsed())
              << " s\n";
  };
  const ExhaustiveReport report = sim::exhaust(options);
  for (const ExhaustiveViolation& each : report.violations) {
    std::cerr << each.what << "\n";
    if (!each.again.empty()) std::cerr << "  again: " << each.again << "\n";
  }
  if (json) {
    std::cout << json::to_text(report) << "\n";
  } else {
    std::cout << report.scripts.size() << " scripts, " << report.runs << " runs, "
              << static_cast<std::uint64_t>(report.simulated_s) << " simulated s in " << elapsed() << " s"
              << (report.every == 1 ? "" : cat(", one point in ", report.every))
              << (report.parts == 1 ? "" : cat(", part ", report.part, " of ", report.parts))
              << (report.whole ? "" : "; the time was up before every point was tried")
              << "\nviolations: " << report.violations.size() << "\n";
  }
  return report.violations.empty() ? 0 : 1;
}

int Command::State::run_script() const {
  const auto crashes = crashes_of(crash);
  if (!crashes || script.empty()) {
    std::cerr << "lockstep sim: --script and --crash say \"" << script << "\", \"" << crash
              << "\"; expected a script and PLACE:NUMBER, as in --script load --crash orchestrator:17,power:4\n";
    return 2;
  }
  Options options = options_of(script, seed == 0 ? 1 : seed, *crashes);
  options.trace = trace;
  const Report report = sim::run(options);
  for (const std::string& each : report.violations) std::cerr << each << "\n";
  std::cout << "script " << script << ", " << text_of(*crashes) << ": " << report.crashed << " ends, "
            << report.completed << " requests completed, " << report.failed << " failed, points after the last end:";
  for (const auto& [where, count] : report.points) std::cout << " " << where << " " << count;
  std::cout << "\nviolations: " << report.violations.size() << "\ntrace hash: " << hex(report.trace_hash) << "\n";
  if (report.crashed < crashes->size()) {
    std::cerr << "lockstep sim: it ended before the point " << text_of({(*crashes)[report.crashed]}) << " was met\n";
    return 2;
  }
  return report.violations.empty() ? 0 : 1;
}

std::optional<int> Command::run() {
  if (!state_->app->parsed()) return std::nullopt;
  // Each world makes a disk of some megabytes anew: given back to the system, they would be cleared for the next one.
  ::mallopt(M_MMAP_THRESHOLD, 256 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  if (state_->exhaustive) {
    if (!state_->script.empty() && script_of(state_->script) == nullptr) {
      std::cerr << "lockstep sim: --script is \"" << state_->script << "\"; --help has their names\n";
      return 2;
    }
    return state_->crash.empty() && !state_->trace ? state_->exhaust() : state_->run_script();
  }
  Options options;
  if (const auto wrong = read_faults(state_->no_faults ? "none" : state_->faults, state_->just, options)) {
    std::cerr << "lockstep sim: " << *wrong << "\n";
    return 2;
  }
  options.trace = state_->trace;
  if (state_->mode != "both") options.mode = state_->mode == "safety" ? Mode::safety : Mode::liveness;
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
  const auto elapsed = [this] { return state_->elapsed(); };
  Summary summary;
  summary.machine = this_machine();
  for (std::uint64_t seed = first; seed <= last; ++seed) {
    if (state_->wall_s > 0 && elapsed() > state_->wall_s && summary.runs >= state_->seeds_min) break;
    options.seed = seed;
    Report report = sim::run(options);
    if (first != last && seed % audit_every == 0) {
      ++summary.audited;
      Options silent = options;
      silent.trace = false;
      const std::uint64_t again = sim::run(silent).trace_hash;
      if (again != report.trace_hash) {
        report.violations.push_back(
            cat("seed ", seed, " is not deterministic: ", hex(report.trace_hash), ", then ", hex(again)));
      }
    }
    ++summary.runs;
    summary.simulated_s += report.simulated_s;
    summary.operations += report.operations;
    summary.commits += report.commits;
    summary.transactions += report.transactions;
    summary.transactions_aborted += report.aborted;
    summary.transactions_min =
        summary.runs == 1 ? report.transactions : std::min(summary.transactions_min, report.transactions);
    summary.commits_spanning += report.spanning;
    summary.protocol_runs += report.loads + report.aborted + report.images + report.rollbacks;
    summary.loads += report.loads;
    summary.images += report.images;
    summary.rollbacks += report.rollbacks;
    summary.rejoins += report.rejoins;
    summary.segments_adopted += report.segments_adopted;
    summary.requests_completed += report.completed;
    summary.requests_failed += report.failed;
    for (const auto& [kind, count] : report.faults) summary.faults[kind] += count;
    summary.violations.insert(summary.violations.end(), report.violations.begin(), report.violations.end());
    if (first == last) summary.trace_hash = hex(report.trace_hash);
    if (!report.violations.empty() && !state_->json) {
      std::cerr << report.violations.front() << "\n  again: lockstep sim --seed " << seed << said_of(options)
                << " --trace\n";
    }
    if (!report.violations.empty() && state_->shrink) print_shrunk(options);
  }
  const double wall = elapsed();
  const bool require = state_->require_faults || summary.runs >= seeds_for_every_fault;
  if (!require && options.faults && !options.just) {
    summary.faults_not_judged =
        cat("faults that never struck are judged from ", seeds_for_every_fault, " seeds on; ", summary.runs, " ran");
  }
  for (const auto& [kind, count] : summary.faults) {
    const bool wanted = options.faults && (options.only.empty() || options.only.contains(kind));
    if (require && wanted && !options.just && count == 0) summary.faults_missed.push_back(kind);
  }
  for (const std::string& kind : summary.faults_missed) {
    std::cerr << "lockstep sim: the fault " << kind << " was never met in " << summary.runs << " seeds\n";
  }
  summary.rows.push_back({"simulated_per_real", "s/s", summary.simulated_s / wall, "higher"});
  summary.rows.push_back({"seeds_per_s", "1/s", static_cast<double>(summary.runs) / wall, "higher"});
  summary.rows.push_back({"seeds_per_hour", "1/h", static_cast<double>(summary.runs) * 3600 / wall, "higher"});
  if (state_->json) {
    std::cout << json::to_text(summary) << "\n";
  } else {
    std::cout << summary.runs << " seeds (" << summary.audited << " run twice), "
              << static_cast<std::uint64_t>(summary.simulated_s) << " simulated s in " << wall << " s, "
              << static_cast<std::uint64_t>(static_cast<double>(summary.runs) * 3600 / wall)
              << " seeds an hour: " << summary.operations << " operations, " << summary.transactions
              << " transactions (" << summary.commits_spanning << " commits of two domains or more, "
              << summary.transactions_aborted << " aborted, at least " << summary.transactions_min << " a seed), "
              << summary.protocol_runs << " runs of a protocol (" << summary.loads << " loads, "
              << summary.transactions_aborted << " aborted, " << summary.images << " images, " << summary.rollbacks
              << " rollbacks), " << summary.commits << " commits, " << summary.rejoins << " rejoins, "
              << summary.segments_adopted << " segments taken back, " << summary.requests_completed
              << " requests completed, " << summary.requests_failed << " failed with a reason\nfaults:";
    for (const auto& [kind, count] : summary.faults) std::cout << " " << kind << " " << count;
    if (summary.faults_not_judged) std::cout << "\n" << *summary.faults_not_judged;
    std::cout << "\nviolations: " << summary.violations.size() << "\n";
    if (summary.trace_hash) std::cout << "trace hash: " << *summary.trace_hash << "\n";
  }
  return summary.violations.empty() && summary.faults_missed.empty() ? 0 : 1;
}

}  // namespace lockstep::sim
