// What people set and what workers ask for, beside the images: routes and policies that flip, waves of pressure,
// requests for memory that are granted, queued, repeated and given back, devices that are measured again.

#include "sim/simulation.h"

#include <iterator>

#include "base/text.h"
#include "events/json_read.h"
#include "propagation/framing.h"

namespace lockstep::sim {

namespace {

constexpr std::string_view device_names[] = {"gpu_0", "gpu_1"};

}  // namespace

void World::plan_governing() {
  for (std::int64_t i = calibrators_.between(0, 4); i > 0; --i) {
    at(calibrators_.between(0, options_.duration), [this] { calibrate(); });
  }
  if (governors_.chance(300'000)) return;  // many a system is never touched
  const auto count = governors_.between(1, 20);
  for (int i = 0; i < count; ++i) {
    at(governors_.between(0, options_.duration * 9 / 10), [this] { govern(); });
  }
  at(governors_.between(0, options_.duration / 10), [this] {
    if (loop_) govern_sessions();
  });
  for (std::int64_t i = governors_.between(0, 12); i > 0; --i) {
    at(governors_.between(options_.duration / 10, options_.duration * 9 / 10), [this] {
      if (loop_) coordinate();
    });
  }
  at(options_.duration + 1, [this] { govern_no_more(); });
}

void World::set(const std::string& path, bool whole, std::string body) {
  const ReplyId reply = ++replies_made_;
  waiting_replies_[reply] = "set";
  trace("person", cat("set ", path, " ", body));
  input(in::Set{reply, path, whole, std::move(body)});
}

void World::press(double share) {
  const Bytes total = 64_GiB;
  trace("person", cat("RAM is used to ", share));
  input(in::SystemMemory{total, Bytes{static_cast<std::uint64_t>(static_cast<double>(total.value) * (1 - share))},
                         std::nullopt, Bytes{}, 0});
}

/// Most samples of a disk say nothing new.
void World::fill_disk() {
  if (!strikes("disk_space_low", disk_random_, 300'000)) return input(in::DataDisk{64_GiB});
  trace("person", "the disk is nearly full");
  input(in::DataDisk{1_MiB});
}

void World::govern() {
  if (!loop_) return;
  if (tellers_.chance(100'000)) {
    const ReplyId reply = ++replies_made_;
    waiting_replies_[reply] = "set";
    return input(in::SetSafetyPolicy{
        {reply, "policies/safety",
         cat(R"({"event_type":"safety_policy_update","policy_version":"v)", reply,
             R"(","safety_thresholds":{"content_safety_minimum":0.1,"quality_minimum":0.0,)",
             R"("technical_compliance":"strict"},"enforcement_actions":{"below_safety_threshold":"reject",)",
             R"("below_quality_threshold":"flag_for_review"}})")}});
  }
  switch (governors_.between(0, 9)) {
    case 0: return flip_routes();
    case 1:
      return set("memory/policy", governors_.chance(300'000),
                 cat(R"({"max_model_cache_size":")", governors_.between(6, 14), R"(GB","vram_reservation_limit":")",
                     governors_.between(6, 8), R"(GB","quotas":{"inference":"2GB"}})"));
    case 2: {
      const std::string_view policies[] = {"aggressive", "moderate", "conservative"};
      return set(cat("devices/", device_names[governors_.between(0, 1)], "/config"), governors_.chance(300'000),
                 cat(R"({"memory_allocation_policy":")", policies[governors_.between(0, 2)], R"(","power_limit":)",
                     governors_.between(100, 400), "}"));
    }
    case 3:
      fill_disk();
      return press(static_cast<double>(governors_.between(50, 99)) / 100);
    case 4: return govern_sessions();
    case 5:
    case 6: return coordinate();
    default: return ask_for_memory();
  }
}

void World::flip_routes() {
  std::map<std::string, std::string> running;
  for (const auto& [key, entry] : machine_->tables().processing.jobs.entries()) {
    if (!entry.row.worker_id.empty()) running[key] = entry.row.worker_id.str();
  }
  const auto first = governors_.between(0, 1);
  const std::string_view primary = device_names[first];
  const std::string_view secondary = device_names[1 - first];
  const std::uint64_t life = life_;
  set("routing", true,
      governors_.chance(200'000)
          ? std::string(R"({"routing_table":{}})")
          : cat(R"({"routing_table":{"inference_primary":")", primary, R"(","inference_secondary":")", secondary,
                R"(","postprocessing":")", governors_.chance(500'000) ? primary : secondary, R"("}})"));
  if (life != life_ || !machine_) return;      // it crashed over it
  for (const auto& [job, worker] : running) {  // an update leaves running work where it is
    const processing::Job* now = machine_->tables().processing.jobs.find(job);
    if (now == nullptr || now->worker_id != WorkerId(worker)) violation(cat("new routes moved ", job));
  }
}

void World::ask_for_memory() {
  std::vector<std::int64_t> pids;
  for (const auto& [pid, process] : processes_) {
    if (process->alive && process->link_up) pids.push_back(pid);
  }
  if (pids.empty()) return;
  const std::int64_t pid = pids[static_cast<std::size_t>(governors_.between(0, std::ssize(pids) - 1))];
  Process& process = *processes_.at(pid);
  const auto& answers = process.machine.request_answers();
  if (!answers.empty() && governors_.chance(300'000)) {  // gives something back, or holds it longer
    auto place = answers.begin();
    std::advance(place, governors_.between(0, std::ssize(answers) - 1));
    if (!place->second.reservation) return;
    ReservationUpdate update{place->second.reservation->allocation_id, std::nullopt};
    if (governors_.chance(300'000)) update.lasts = DurationText{"5s"};
    return worker_input(pid, win::UpdateReservation{update});
  }
  MemoryAllocationRequest request;
  request.request_id = cat("wish_", governors_.between(1, 12));
  // What is asked for follows from the id, so that an id that comes again is mostly the same request.
  const std::uint64_t size = request.request_id.size() + (governors_.chance(50'000) ? 1 : 0);
  request.requested_bytes = Bytes{size << 28};
  request.allocation_purpose = request.request_id.size() % 2 == 0 ? "inference" : "model_loading";
  request.estimated_duration = DurationText{"10s"};
  worker_input(pid, win::AskMemory{request});
}

void World::govern_sessions() {
  const ReplyId reply = ++replies_made_;
  if (sessions_.empty() || governors_.chance(700'000)) {
    waiting_replies_[reply] = "session";
    trace("person", "a session");
    return input(command_at(reply, "sessions",
                            governors_.chance(300'000) ? R"({"max_memory":"5GB","session_timeout":"300s"})"
                                                       : R"({"session_timeout":"300s"})"));
  }
  waiting_replies_[reply] = "end of a session";
  const std::string_view words[] = {"complete", "cancel"};
  input(command_at(reply, cat("sessions/", sessions_.back(), "/", words[governors_.between(0, 1)]), ""));
}

void World::coordinate() {
  std::vector<std::pair<std::int64_t, std::string>> told;  // processes, and the sessions they were told of
  for (const auto& [session, workers] : machine_->live().sessions_told) {
    for (const auto& [pid, process] : processes_) {
      if (process->alive && process->link_up && workers.contains(process->worker_id)) told.emplace_back(pid, session);
    }
  }
  if (told.empty()) return govern_sessions();
  const auto& [pid, session] = told[static_cast<std::size_t>(governors_.between(0, std::ssize(told) - 1))];
  CrossDomainCoordination request;
  request.session_id = governors_.chance(50'000) ? "ses_none" : session;
  const std::string_view models[] = {"base-a", "base-b", "no-such-model"};
  if (governors_.chance(600'000)) {
    request.coordination_request.requires_model_loading = ModelId(std::string(models[governors_.between(0, 2)]));
  }
  if (!request.coordination_request.requires_model_loading || governors_.chance(500'000)) {
    request.coordination_request.requires_memory_allocation = SizeText{cat(governors_.between(1, 6), "GB")};
  }
  request.dependent_operations = {governors_.chance(500'000) ? "inference" : "postprocessing"};
  if (governors_.chance(500'000)) request.request_id = cat("need_", governors_.between(1, 6));
  trace("worker", cat("coordinate ", coordination_id(request)));
  worker_input(pid, win::Coordinate{request});
}

void World::calibrate() {
  if (!loop_) return;
  const std::string_view devices[] = {"gpu_0", "gpu_1", "guest_device", "gpu_9"};
  const std::string_view device = devices[calibrators_.between(0, 3)];
  const ReplyId reply = ++replies_made_;
  waiting_replies_[reply] = "calibrate";
  trace("person", cat("calibrate ", device));
  input(in::CalibrateDevice{reply, DeviceId(std::string(device)), calibrators_.chance(700'000)});
}

void World::note_answer(const out::SendFrame& effect) {
  if (effect.frame.header.type != static_cast<std::uint16_t>(FrameType::request_answer)) return;
  const auto envelope = from_frame(effect.frame);
  const auto answer =
      envelope ? json::from_text<RequestAnswer>(envelope->body.text) : Result<RequestAnswer>(envelope.error());
  if (!answer) return violation("an answer that cannot be read");
  if (answer->conflict || answer->outcome == RequestOutcome::queued) return;
  const std::string key = cat(effect.worker_id.str(), "/", effect.incarnation.value, "/", answer->request_id);
  const auto [place, first] = final_answers_.emplace(key, envelope->body.text);
  if (!first && place->second != envelope->body.text) violation(cat(key, " got two final answers"));
}

void World::check_governed() {
  const Tables& tables = machine_->tables();
  for (const auto& [key, entry] : tables.memory.grants.entries()) {
    const memory::Grant& grant = entry.row;
    const WorkerRecord* worker = tables.liveness.workers.find(grant.worker_id.str());
    if (worker == nullptr || worker->incarnation != grant.incarnation || worker->state == WorkerState::gone) {
      violation(cat(key, " belongs to an incarnation that is gone"));
    }
    if (grant.lasts <= 0) violation(cat(key, " never lapses"));
  }
  for (const auto& [key, entry] : tables.memory.grants.entries()) {
    if (!entry.row.session_id) continue;
    const processing::Session& session = tables.processing.sessions.at(*entry.row.session_id);
    if (processing::is_terminal(session.state)) violation(cat(key, " is held for a session that has ended"));
  }
  for (const auto& [key, entry] : tables.device.configs.entries()) {
    const device::Config& config = entry.row;
    if (config.confirmed_revision > config.revision) violation(cat(key, " confirmed what was never intended"));
    if (config.confirmed.power_limit.value_or(0) >= power_allowed) {
      violation(
          cat(key, " confirmed a power limit of ", *config.confirmed.power_limit, " W, which the driver refused"));
    }
  }
}

void World::govern_no_more() {
  if (!loop_ || !machine_->live().started) return after(seconds(1), [this] { govern_no_more(); });
  set("memory/policy", true, "{}");
  set("routing", true, R"({"routing_table":{}})");
  for (const std::string_view device : device_names) set(cat("devices/", device, "/config"), true, "{}");
  press(0.3);
  input(in::DataDisk{64_GiB});
}

}  // namespace lockstep::sim
