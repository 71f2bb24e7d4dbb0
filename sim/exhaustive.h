#pragma once

// The exhaustive mode: every script, and for each point of it a run that ends there; for scripts of one operation a
// second end at each point of the recovery. docs/simulator.md.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "sim/world.h"

namespace lockstep::sim {

/// points  of the peaceful run, by where
struct ScriptReport {
  std::string script;
  std::uint64_t operations = 0;
  std::map<std::string, std::uint64_t> points;
  std::uint64_t runs = 0;
  std::uint64_t pairs = 0;  // of these, with a second end within the recovery
};
BOOST_DESCRIBE_STRUCT(ScriptReport, (), (script, operations, points, runs, pairs))

/// again  the command that repeats it
struct ExhaustiveViolation {
  std::string what;
  std::string again;
};
BOOST_DESCRIBE_STRUCT(ExhaustiveViolation, (), (what, again))

struct ExhaustiveReport {
  std::string bench = "sim_exhaustive";
  std::uint64_t seed = 1;
  std::uint64_t every = 1;
  std::uint64_t part = 1;
  std::uint64_t parts = 1;
  bool whole = true;  // every point of what was asked was tried; false when the time was up
  std::uint64_t runs = 0;
  double simulated_s = 0;
  std::vector<ScriptReport> scripts;
  std::vector<ExhaustiveViolation> violations;  // at most violations_max, then it stops
};
BOOST_DESCRIBE_STRUCT(ExhaustiveReport, (),
                      (bench, seed, every, part, parts, whole, runs, simulated_s, scripts, violations))

inline constexpr std::size_t violations_max = 20;

struct ExhaustiveOptions {
  std::uint64_t seed = 1;                             // of latencies, and of what a power cut leaves
  std::vector<std::string> scripts;                   // empty: all
  int depth = 2;                                      // 1: one end a run
  std::uint64_t every = 1;                            // of the points, only each so many-th is tried
  std::uint64_t part = 1;                             // of `parts`, which together try what one of one tries, and
  std::uint64_t parts = 1;                            // share out the first ends with the second ones that follow them
  std::function<bool()> go_on = [] { return true; };  // false: the time is up
  std::function<void(const ScriptReport&)> done = [](const ScriptReport&) {};  // with a script
};

ExhaustiveReport exhaust(const ExhaustiveOptions& options);

/// One run of a script.
Options options_of(const std::string& script, std::uint64_t seed, std::vector<Crash> crashes);
/// "orchestrator:17,power:4"; nothing when it cannot be read.
std::optional<std::vector<Crash>> crashes_of(const std::string& text);
std::string text_of(const std::vector<Crash>& crashes);

}  // namespace lockstep::sim
