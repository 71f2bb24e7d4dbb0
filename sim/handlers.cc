// What handlers do inside a worker: tasks take their time, report, answer, fail, hang.

#include "sim/simulation.h"

#include <optional>

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"
#include "events/json_read.h"
#include "worker/reports.h"

namespace lockstep::sim {

namespace {

/// What a handler may say in the place of its result: of another type, with members of another type, not to its end,
/// or far more than anybody reads.
std::string bad_result(std::int64_t which) {
  switch (which) {
    case 0: return "[]";
    case 1: return R"({"bytes":"much","bytes_mapped":{},"seconds":"long","sha256":7,"safety":[],"width":-1})";
    case 2: return R"({"bytes":1,"bytes_mapped":0,"sha2)";
    default: return cat(R"({"bytes":1,"bytes_mapped":0,"sha256":")", std::string(std::size_t{2} << 20, 'f'), R"("})");
  }
}

}  // namespace

void World::carry_out(Process& process, wout::ArmTimer& effect) {
  const std::uint64_t number = ++timers_made_;
  process.timers[effect.name] = number;
  await_timer(process, effect.name, number, effect.deadline);
}

/// A clock that stood still meanwhile is not there yet; a process that was paused may have armed it anew first.
void World::await_timer(const Process& process, const std::string& name, std::uint64_t number, Nanos deadline) {
  at(std::max(now_, process.clock.world(deadline)), [this, pid = process.pid, name, number, deadline] {
    Process* owner = living(pid);
    if (owner == nullptr || owner->timers.at(name) != number) return;
    if (owner->paused) {
      owner->when_awake.push_back([this, pid, name, number, deadline] {
        if (const Process* const awake = living(pid)) await_timer(*awake, name, number, deadline);
      });
      return;
    }
    if (owner->clock.local(now_) < deadline) return await_timer(*owner, name, number, deadline);
    worker_input(pid, win::TimerFired{name});
  });
}

void World::carry_out(Process& process, wout::SampleTelemetry&) {
  win::Telemetry reading{{}, process.machine.used() + kept_by(process), Ratio{0}, {}};
  if (strikes("device_hot", manners_, 20'000)) reading.health.temperature = 95;
  worker_input_soon(process, std::move(reading));
}

/// A driver that allows less than power_allowed watts.
void World::carry_out(Process& process, wout::SetPowerLimit& effect) {
  const bool refuses = effect.watts && *effect.watts >= power_allowed;
  const bool slow = strikes("driver_slow", handlers_, 200'000);
  const Nanos duration = milliseconds(slow ? handlers_.between(500, 4000) : handlers_.between(1, 20));
  after(duration, [this, pid = process.pid, number = effect.number, refuses] {
    if (living(pid) != nullptr) worker_input(pid, win::PowerLimitSet{number, refuses ? "the driver refuses it" : ""});
  });
}

/// A device that is never quite the same.
void World::carry_out(Process& process, wout::Calibrate& effect) {
  if (process.hung) return;
  process.measures = true;
  if (strikes("probe_hangs", calibrators_, 100'000)) {
    process.hung = true;
    return;
  }
  const bool slow = strikes("probe_slow", calibrators_, 200'000);
  const Nanos duration = milliseconds(slow ? calibrators_.between(500, 8000) : calibrators_.between(10, 60));
  process.stalls_until = std::max(process.stalls_until, now_ + duration);  // it may be longer than the deadline
  DeviceCapabilityDiscovered found;
  found.capability_scores.items = {{"memory_bandwidth", static_cast<double>(calibrators_.between(0, 10))}};
  after(duration, [this, pid = process.pid, task = effect.task, found] {
    Process* measured = living(pid);
    if (measured == nullptr) return;
    measured->measures = false;
    worker_input(pid, win::Calibrated{task, found});
  });
}

void World::carry_out(Process& process, wout::StartTask& effect) {
  if (process.measures) violation(cat(process.worker_id.str(), " starts a ", effect.kind, " beside a measurement"));
  std::vector<Content> contents;
  for (const worker::HandleId id : effect.handles) {
    contents.push_back(process.handles.at(id));
    process.handles.erase(id);
  }
  const std::int64_t pid = process.pid;
  if (process.hung) return;
  if (strikes("handler_hangs", handlers_, 4000)) {
    process.hung = true;
    return;
  }
  if (strikes("interpreter_held", manners_, 4000)) {
    process.held_until = now_ + seconds(20);
    process.stalls_until = std::max(process.stalls_until, process.held_until);
  }
  const Nanos duration = milliseconds(handlers_.between(30, 1500));
  const std::optional<Nanos> pace = slowness(process);
  ModelId loads;
  if (effect.kind == "load") {
    loads = json::from_text<LoadTask>(effect.body).value().model_id;
    process.failed_loads.erase(loads);
  }
  const bool as_scripted = effect.kind == "load" && failing_loads_ > 0 && failing_loads_-- > 0;
  if (strikes(effect.kind == "load" ? "load_failed" : "handler_failed", handlers_, 15'000) || as_scripted) {
    const char* const code = handlers_.chance(500'000) ? "internal" : "resource_exhausted";
    return when_free(pid, duration, [this, pid, task = effect.task, code, loads] {
      if (!loads.empty()) fails_to_load(*processes_.at(pid), loads);
      worker_input(pid, win::TaskFailed{task, code, "simulated failure"});
    });
  }
  run_task(process, effect, contents, duration, pace);
}

/// Its allocator may keep what the load had taken: for a while, or as long as it lives.
void World::fails_to_load(Process& process, const ModelId& model) {
  process.failed_loads.insert(model);
  const auto plan = process.machine.holdings().find(model);
  if (scripted() || plan == process.machine.holdings().end()) return;
  if (!process.alive || !strikes("unload_lies", sagas_, 500'000)) return;
  process.kept = plan->second.bytes;
  process.keeps = model;
  process.kept_until = sagas_.chance(500'000) ? now_ + seconds(sagas_.between(1, 20)) : Nanos{INT64_MAX};
}

Bytes World::kept_by(Process& process) const {
  // One that stands still has not heard of the failure yet: it counts the model itself.
  if (process.keeps && process.machine.holdings().contains(*process.keeps)) return {};
  process.keeps.reset();
  return now_ < process.kept_until ? process.kept : Bytes{};
}

/// Far slower than others, and yet alive: each report comes well before the deadline, or well after it.
std::optional<Nanos> World::slowness(Process& process) {
  if (!hits(handlers_, 10'000)) return std::nullopt;
  const Nanos deadline = settings_.timing.progress_deadline;
  const bool too_slow = handlers_.chance(300'000);
  if (!meets(too_slow ? "handler_too_slow" : "handler_slow")) return std::nullopt;
  if (too_slow) {
    const Nanos pace = deadline * handlers_.between(11, 20) / 10;
    process.stalls_until = std::max(process.stalls_until, now_ + 8 * pace);
    return pace;
  }
  return deadline * handlers_.between(3, 6) / 10;
}

void World::run_task(Process& process, const wout::StartTask& start, const std::vector<Content>& contents,
                     Nanos duration, std::optional<Nanos> pace) {
  const auto reports = [&](std::int64_t count) {
    if (pace) duration = *pace * count;
  };
  reports(1);
  const std::int64_t pid = process.pid;
  ModelId loads;
  if (start.kind == "load") loads = json::from_text<LoadTask>(start.body).value().model_id;
  const auto finish = [&, this](std::string report, std::optional<Content> result) {
    when_free(pid, duration,
              [this, pid, task = start.task, kind = start.kind, loads, report = std::move(report), result] {
                Process* alive = living(pid);
                if (alive == nullptr) return;
                if (alive->cancelled.contains(task) && kind != "load" && kind != "release") {
                  return worker_input(pid, win::TaskFailed{task, "cancelled", "it was cancelled"});
                }
                win::TaskDone done{task, report, {}};
                if (kind != "inference_batch" && strikes("handler_answers_badly", answers_, 4000)) {
                  done.report = bad_result(answers_.between(0, 3));
                  if (!loads.empty()) fails_to_load(*alive, loads);
                }
                const auto attach = [&] {
                  if (!result) return;
                  alive->handles[++alive->handles_made] = *result;
                  done.handles = {alive->handles_made};
                };
                const bool twice = hits(handlers_, 5000) && permits("handler_answers_twice");
                attach();
                worker_input(pid, done);
                if (!twice || (alive = living(pid)) == nullptr) return;
                fault("handler_answers_twice");
                attach();
                worker_input(pid, done);
              });
  };
  if (start.kind == "load") {
    const auto task = json::from_text<LoadTask>(start.body);
    LOCKSTEP_CHECK(task.has_value() && contents.size() == task->components.size());
    for (std::size_t i = 0; i < contents.size(); ++i) {
      const std::string name = component_of(contents[i]);
      const ModelId owner = task->components[i].model_id.value_or(task->model_id);
      if (name != cat(owner.str(), "/", task->components[i].name)) violation("wrong segment arrived");
      if (task->components[i].sha256 != sha256_hex(name)) violation("wrong digest was promised");
    }
    reports(2);
    progress(pid, start.task, duration / 2, json::to_text(LoadReport{task->components[0].name, Ratio{0.5}, 1_GiB}));
    finish(json::to_text(LoadDone{1_GiB, 1.0}), std::nullopt);
  } else if (start.kind == "release") {
    finish(json::to_text(ReleaseDone{Bytes{strikes("release_lies", handlers_, 5000) ? 1u : 0u}}), std::nullopt);
  } else if (start.kind == "inference") {
    const auto task = json::from_text<InferenceTask>(start.body);
    LOCKSTEP_CHECK(task.has_value());
    if (!process.machine.holdings().contains(task->model_id)) violation("inference without its model");
    reports(task->steps);
    if (strikes("handler_floods", manners_, 10'000)) {
      for (int i = 0; i < 300; ++i) {
        progress(pid, start.task, duration * i / 300, json::to_text(InferenceReport{0, task->steps, 0.01}));
      }
    }
    for (std::uint32_t step = 1; step < task->steps; ++step) {
      progress(pid, start.task, duration * step / task->steps, json::to_text(InferenceReport{step, task->steps, 0.01}));
    }
    const std::string pixels = pixels_of(task->prompt, task->seed);
    finish(json::to_text(InferenceDone{1, task->steps, task->width, task->height, 1, pixels, 1_GiB, 5}), pixels);
  } else if (start.kind == "inference_batch") {
    const auto task = json::from_text<InferenceBatchTask>(start.body);
    LOCKSTEP_CHECK(task.has_value() && !task->images.empty());
    reports(static_cast<std::int64_t>(task->images.size()));
    if (process.machine.used() > task->vram_limit) violation("a batch began above its vram_limit");
    const auto count = static_cast<std::int64_t>(task->images.size());
    for (std::int64_t i = 0; i < count; ++i) {
      const InferenceTask& image = task->images[static_cast<std::size_t>(i)];
      if (!process.machine.holdings().contains(image.model_id)) violation("inference without its model");
      if (image.prompt != task->images[0].prompt) violation("images of two requests in one batch");
      hand_over(pid, start.task, duration * (i + 1) / (count + 1), image);
    }
    finish("{}", std::nullopt);
  } else {
    const auto task = json::from_text<PostprocessTask>(start.body);
    LOCKSTEP_CHECK(task.has_value() && contents.size() == 1);
    if (contents[0] != task->source.sha256) violation("the pixels are not the source that was named");
    PostprocessDone done;
    const bool unsafe = is_unsafe(contents[0]);
    done.safety = SafetyAnalysis{unsafe ? 0.0 : 1.0, unsafe ? "unsafe" : "safe", {}};
    const std::string result = processed(contents[0]);
    if (!unsafe) done.output = PostprocessOutput{64, 64, 1, result};
    finish(json::to_text(done), unsafe ? std::nullopt : std::optional(result));
  }
}

/// One picture of a batch, sometimes twice, and sometimes one that nobody asked for.
void World::hand_over(std::int64_t pid, worker::TaskId task, Nanos delay, const InferenceTask& image) {
  when_free(pid, delay, [this, pid, task, image] {
    const std::string pixels = pixels_of(image.prompt, image.seed);
    const std::string report =
        json::to_text(InferenceDone{1, image.steps, image.width, image.height, 1, pixels, 1_GiB, 5});
    const auto tell = [&](std::string request_id) {
      Process* const alive = living(pid);
      if (alive == nullptr || alive->cancelled.contains(task)) return;
      alive->handles[++alive->handles_made] = pixels;
      worker_input(pid, win::TaskPart{task, std::move(request_id), report, {alive->handles_made}});
    };
    tell(image.request_id);
    if (!strikes("handler_answers_twice", handlers_, 20'000)) return;
    tell(image.request_id);
    tell("inf:nobody:1");
  });
}

void World::progress(std::int64_t pid, worker::TaskId task, Nanos delay, std::string report) {
  when_free(pid, delay,
            [this, pid, task, report = std::move(report)] { worker_input(pid, win::TaskProgress{task, report}); });
}

}  // namespace lockstep::sim
