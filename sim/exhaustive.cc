#include "sim/exhaustive.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/text.h"
#include "sim/script.h"

namespace lockstep::sim {

namespace {

constexpr std::string_view places[] = {"orchestrator", "power",    "kept", "lost",
                                       "worker_0",     "worker_1", "cut",  "delayed"};

/// Of a message: the link breaks with it, or it comes late. Tried in scripts of one operation.
constexpr std::string_view of_messages[] = {"cut", "delayed"};

/// What kept all is what a process leaves that ends alone, so it is no second kind of recovery.
constexpr std::string_view ends_twice[] = {"orchestrator", "lost", "power"};

class Search {
 public:
  explicit Search(const ExhaustiveOptions& options) : options_(options) {
    report_.seed = options.seed;
    report_.every = options.every;
    report_.part = options.part;
    report_.parts = options.parts;
  }

  ExhaustiveReport run() {
    for (const Script& each : scripts()) {
      const std::string name(each.name);
      if (!options_.scripts.empty() && std::ranges::find(options_.scripts, name) == options_.scripts.end()) continue;
      report_.scripts.push_back({name, each.acts.size(), {}, 0, 0});
      if (!goes_on()) continue;  // it is listed, with no run
      search(report_.scripts.size() - 1, each.acts.size() == 1);
      options_.done(report_.scripts.back());
    }
    // Only when each script has ended everywhere once: a limit of time shall cost second ends, not whole scripts.
    for (const std::string_view where : ends_twice) {
      for (const Recovery& each : recoveries_) {
        if (each.first.where == where) end_again(report_.scripts[each.script], each);
      }
    }
    if (!recoveries_.empty()) {
      for (const ScriptReport& each : report_.scripts) {
        if (each.pairs > 0) options_.done(each);
      }
    }
    return std::move(report_);
  }

 private:
  /// points  of the same kind in the recovery after the first end
  struct Recovery {
    std::size_t script;
    Crash first;
    std::uint64_t points;
  };

  bool goes_on() {
    if (!options_.go_on()) report_.whole = false;
    return report_.whole && report_.violations.size() < violations_max;
  }

  Report try_one(ScriptReport& script, const std::vector<Crash>& crashes) {
    Report found = sim::run(options_of(script.script, options_.seed, crashes));
    ++script.runs;
    ++report_.runs;
    report_.simulated_s += found.simulated_s;
    if (found.violations.empty() && found.crashed < crashes.size()) {
      found.violations.push_back("a point that was met before was not met again: it is not deterministic");
    }
    if (!found.violations.empty()) {
      report_.violations.push_back(
          {cat("script ", script.script, ", ", text_of(crashes), ": ", found.violations.front()),
           cat("lockstep sim --exhaustive --script ", script.script,
               crashes.empty() ? "" : cat(" --crash ", text_of(crashes)),
               options_.seed == 1 ? "" : cat(" --seed ", options_.seed), " --trace")});
    }
    return found;
  }

  void search(std::size_t index, bool one_operation) {
    ScriptReport& script = report_.scripts[index];
    const Report peaceful = try_one(script, {});
    script.points = peaceful.points;
    const bool twice = one_operation && options_.depth > 1;
    for (const std::string_view where : places) {
      if (!one_operation && std::ranges::find(of_messages, where) != std::end(of_messages)) {
        script.points.erase(std::string(where));
        continue;
      }
      const auto place = script.points.find(std::string(where));
      if (place == script.points.end() || place->second == 0) {
        report_.violations.push_back({cat("script ", script.script, " has no point at ", where), ""});
        continue;
      }
      for (std::uint64_t number = 1; number <= place->second && goes_on(); number += options_.every) {
        if (first_ends_++ % options_.parts != options_.part - 1) continue;
        const Crash first{place->first, number};
        const Report once = try_one(script, {first});
        if (!twice || !once.violations.empty() || std::ranges::find(ends_twice, where) == std::end(ends_twice))
          continue;
        const auto again = once.restart.find(first.where);
        if (again == once.restart.end()) {
          report_.violations.push_back(
              {cat("script ", script.script, ": no point of a recovery after ", text_of({first})), ""});
          continue;
        }
        recoveries_.push_back({index, first, again->second});
      }
    }
  }

  void end_again(ScriptReport& script, const Recovery& recovery) {
    for (std::uint64_t number = 1; number <= recovery.points && goes_on(); number += options_.every) {
      try_one(script, {recovery.first, {recovery.first.where, number}});
      ++script.pairs;
    }
  }

  const ExhaustiveOptions& options_;
  ExhaustiveReport report_;
  std::vector<Recovery> recoveries_;
  std::uint64_t first_ends_ = 0;
};

}  // namespace

ExhaustiveReport exhaust(const ExhaustiveOptions& options) { return Search(options).run(); }

Options options_of(const std::string& script, std::uint64_t seed, std::vector<Crash> crashes) {
  Options out;
  out.seed = seed;
  out.faults = false;
  out.transactions_min = 0;
  out.script = script;
  out.crashes = std::move(crashes);
  const auto& acts = script_of(script)->acts;
  out.duration = acts.back().at + seconds(5);  // a load waits for the disk; then it must come to rest
  return out;
}

std::optional<std::vector<Crash>> crashes_of(const std::string& text) {
  std::vector<Crash> out;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    const std::size_t colon = word.find(':');
    if (colon == std::string::npos) return std::nullopt;
    Crash crash{word.substr(0, colon), 0};
    const std::string_view digits = std::string_view(word).substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), crash.number);
    const bool is_number = error == std::errc() && end == digits.end() && crash.number > 0;
    if (!is_number || std::ranges::find(places, crash.where) == std::end(places)) return std::nullopt;
    out.push_back(std::move(crash));
  }
  return out;
}

std::string text_of(const std::vector<Crash>& crashes) {
  std::string out;
  for (const Crash& each : crashes) out += cat(out.empty() ? "" : ",", each.where, ":", each.number);
  return out.empty() ? "no crash" : out;
}

}  // namespace lockstep::sim
