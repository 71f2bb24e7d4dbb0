#include "sim/world.h"

#include <algorithm>
#include <cstdio>

#include "base/check.h"
#include "base/text.h"
#include "sim/faults.h"
#include "sim/simulation.h"

namespace lockstep::sim {

World::World(const Options& options)
    : options_(options),
      random_(options.seed),
      schedule_(random_.fork()),
      network_(random_.fork()),
      disk_random_(random_.fork()),
      handlers_(random_.fork()),
      crashes_(random_.fork()),
      clients_(random_.fork()),
      manners_(random_.fork()) {
  for (const std::string_view name : fault_names) report_.faults.emplace(name, 0);
  report_.seed = options.seed;
  models_ = {{"base-a", model::Kind::sdxl, 4_GiB, {"unet", "vae", "configuration"}},
             {"base-b", model::Kind::sdxl, 5_GiB, {"checkpoint"}, true},
             {"safety", model::Kind::safety_classifier, 1_GiB, {"model"}},
             {"upscaler", model::Kind::upscaler, 2_GiB, {"model"}}};
  settings_.version = "sim";
  if (options.seed % 4 != 0) settings_.schema_digest = schema_digest;  // the others speak JSON with everybody
  settings_.cache_limit = Bytes{static_cast<std::uint64_t>(random_.between(8, 14)) << 30};
  settings_.timing.progress_deadline = seconds(random_.between(5, 20));
  settings_.timing.start_deadline = seconds(20);
  settings_.breaker.trial_after = seconds(10);  // within the time that a healed system has to finish
  for (int i = 0; i < 2; ++i) {
    settings_.workers.push_back({WorkerId(cat("worker_", i)), DeviceId(cat("gpu_", i)),
                                 i == 0 ? device::Kind::cpu : device::Kind::cuda, 8_GiB});
  }
}

Report World::run() {
  draw_clocks();
  if (scripted()) {
    plan_script();
    start_orchestrator();
  } else {
    start_orchestrator();
    if (random_.chance(700'000)) start_guest();
    plan_clients();
    plan_governing();
    plan_faults();
  }
  while (!events_.empty() && report_.violations.empty()) {
    const auto next = events_.top();
    if (next.time > options_.duration && options_.mode == Mode::safety) break;
    if (next.time > options_.duration) healed_ = true;
    // One instant later those who govern have undone what they did: while they refuse clients, nothing is ever enough.
    if (next.time > options_.duration + 1 && at_rest()) {
      if (report_.transactions >= options_.transactions_min) break;
      operate();  // a long stall has left it too little time: clients go on
      continue;   // what they do comes before what was next
    }
    if (next.time > options_.duration + options_.rest_limit) {
      violation(
          cat(unkept(), "not at rest ", options_.rest_limit / seconds(1), " s after the faults ended: ", unrest()));
      break;
    }
    events_.pop();
    now_ = next.time;
    const auto what = std::move(actions_.at(next.sequence));
    actions_.erase(next.sequence);
    what();
    if (options_.mode != Mode::liveness) check_invariants();
    if (options_.mode != Mode::safety) check_decided();
  }
  if (report_.restart.empty()) report_.restart = report_.points;  // it came to rest before
  count_requests();
  if (report_.violations.empty() && options_.mode == Mode::safety) check_record();
  if (report_.violations.empty() && options_.mode != Mode::safety) check_end();
  // Nothing happened between its last event and the end of the time with faults.
  const Nanos ended = report_.violations.empty() ? std::max(now_, options_.duration) : now_;
  report_.simulated_s = static_cast<double>(ended) / 1e9;
  report_.trace_hash = trace_;
  return report_;
}

void World::at(Nanos time, std::function<void()> what) {
  const std::uint64_t sequence = ++sequence_;
  events_.push({time, schedule_.next(), sequence});
  actions_.emplace(sequence, std::move(what));
}

void World::trace(std::string_view node, std::string_view what) {
  for (const std::string_view text : {node, what}) {
    for (const char c : text) trace_ = (trace_ ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  }
  trace_ = (trace_ ^ static_cast<std::uint64_t>(now_)) * 0x100000001B3ULL;
  if (options_.trace) {
    std::fprintf(stderr, "%10.6f %-10.*s %.*s\n", static_cast<double>(now_) / 1e9, static_cast<int>(node.size()),
                 node.data(), static_cast<int>(std::min<std::size_t>(what.size(), 400)), what.data());
  }
}

void World::fault(std::string_view name) {
  const auto place = report_.faults.find(std::string(name));
  LOCKSTEP_CHECK(place != report_.faults.end());  // a fault without a name cannot be missed
  ++place->second;
  trace("fault", name);
}

bool World::hits(Random& stream, std::uint64_t per_million) {
  return stream.chance(per_million);  // drawn always, so that healing changes no other stream
}

bool World::allows(std::string_view name) const {
  return options_.faults && (options_.only.empty() || options_.only.contains(std::string(name)));
}

bool World::permits(std::string_view name) {
  if (healed_ || !allows(name)) return false;
  Occurrence occurrence{std::string(name), 0};
  occurrence.second = ++occurrences_[occurrence.first];
  if (options_.just && !options_.just->contains(occurrence)) return false;
  report_.met.push_back(std::move(occurrence));
  return true;
}

bool World::meets(std::string_view name) {
  if (!permits(name)) return false;
  fault(name);
  return true;
}

void World::violation(std::string text) {
  trace("VIOLATION", text);
  report_.violations.push_back(cat("seed ", options_.seed, " at ", now_ / 1'000'000, " ms: ", text));
}

Report run(const Options& options) { return World(options).run(); }

}  // namespace lockstep::sim
