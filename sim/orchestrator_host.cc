// The orchestrator's side of the world: its start and crash, its disk, timers, files, and what is kept for it.

#include "sim/simulation.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"
#include "domains/model/configuration.h"
#include "events/transaction_documents.h"

namespace lockstep::sim {

namespace {

/// Small pieces, so that crashes fall between them.
constexpr UpkeepLimits upkeep_limits{.commits = 150, .piece_rows = 8, .piece_bytes = 64u << 10};

}  // namespace

void World::start_orchestrator() {
  const std::uint64_t life = ++life_;
  watch_restart();
  const auto recovered = open_journal();
  if (!recovered) return;
  machine_ = std::make_unique<Orchestrator>(settings_);
  const auto last = machine_->recover(*recovered);
  if (!last) return violation(cat("recovery failed: ", last.error().message));
  judge_recovered(*last);
  if (scripted() || epochs_.chance(300'000)) judge_starts(*recovered);
  judged_ = std::make_unique<Judged>(*machine_);
  loop_ = std::make_unique<Loop<Judged>>(*judged_, *last);
  upkeep_ = Upkeep(recovered->records.size(), upkeep_limits);
  trace("orchestrator", cat("start, life ", life, ", rev ", last->value));
  input(in::Started{"sim-cluster", sha256_hex(secret)});
}

void World::flush() {
  if (paused_) return;
  while (loop_) {
    auto effect = loop_->next_effect();
    if (!effect) break;
    const Lsn depends = judged_->take_next();
    if (depends > written_) {  // S4, whatever it is: a frame, an answer, an event, a process
      violation(cat("S4: what rev ", depends.value, " decided leaves, and ", written_.value, " is on disk"));
    }
    acknowledged_ = std::max(acknowledged_, loop_->durable());
    if ((hits(crashes_, 250) && permits("orchestrator_crash")) || ends_here("orchestrator")) {
      return crash_orchestrator("between two effects");
    }
    std::visit([this](auto& each) { carry_out(each); }, effect->what);
  }
  if (!loop_ || syncing_ || loop_->pending() == 0) return;
  syncing_ = true;
  auto batch = std::make_shared<std::vector<Record>>(loop_->take_batch());
  report_.commits += batch->size();
  upkeep_.committed(batch->size());
  auto piece = std::make_shared<std::optional<SnapshotPiece>>(upkeep_.next(*machine_, loop_->applied()));
  if (hits(crashes_, 800) && permits("orchestrator_crash")) {
    disk_.plan(DiskFault::power_cut, static_cast<int>(disk_random_.between(0, 5)));
    if (append(*batch)) crash_orchestrator("after a sync");
    return;
  }
  Nanos wait = strikes("disk_stall", disk_random_, 2000) ? seconds(disk_random_.between(1, 8))
                                                         : disk_random_.between(80'000, 2'000'000);
  if (strikes("disk_stall_long", disk_faults_, 250)) {
    wait = seconds(disk_faults_.between(10, 60));
    late_for_ = std::max(late_for_, wait + seconds(2));
  }
  if (wait > seconds(1) - 1) disturbed_until_ = std::max(disturbed_until_, now_ + wait);
  after(wait, [this, life = life_, batch, piece] {
    if (life != life_) return;
    when_awake([this, batch, piece] {
      if (!append(*batch)) return;
      syncing_ = false;
      loop_->durable(batch->back().lsn);
      if (*piece ? !snapshot(**piece) : !tidy()) return;
      flush();
    });
  });
}

void World::crash_orchestrator(const std::string& when) {
  fault("orchestrator_crash");
  disturbed_until_ = std::max(disturbed_until_, now_ + seconds(4));
  trace("orchestrator", cat("crash ", when));
  ++life_;
  // The machine, or only the process: then the system keeps what it wrote. Workers live on in both cases.
  if (disk_faults_.chance(500'000) && !scripted() && !disk_.is_off()) disk_.cut_power();
  disk_.kill();
  store_.reset();
  loop_.reset();
  judged_.reset();
  machine_.reset();
  syncing_ = false;
  paused_ = false;
  when_awake_.clear();
  timers_.clear();
  due_.clear();
  handles_.clear();
  segments_.clear();
  waiting_replies_.clear();
  overruled_.clear();
  reply_keys_.clear();
  for (auto& [pid, process] : processes_) {
    if (!process->alive || !process->link_up) continue;
    process->link_up = false;
    after(std::max(network_.between(1000, 5'000'000), process->cut_off_until - now_),
          [this, number = pid, link = process->link] { close_at_worker(number, link); });
  }
  start_again();
}

void World::start_again() {
  after(milliseconds(crashes_.between(1, 3000)), [this] {
    if (!loop_) start_orchestrator();
  });
}

void World::carry_out(out::ArmTimer& effect) {
  const std::uint64_t number = ++timers_made_;
  timers_[effect.name] = number;
  at(std::max(now_, effect.deadline), [this, life = life_, name = effect.name, number] {
    if (life != life_) return;
    when_awake([this, name, number] {
      const auto place = timers_.find(name);
      if (place == timers_.end() || place->second != number) return;
      timers_.erase(place);
      input(in::TimerFired{name});
    });
  });
}

void World::carry_out(out::ScanModels&) {
  in::ModelsScanned scanned;
  for (const SimModel& each : models_) {
    in::ScannedModel model;
    model.model.model_id = ModelId(each.id);
    model.model.kind = each.kind;
    model.model.path = cat("/models/", each.id);
    model.model.availability = model::Availability::available;
    model.model.bytes = each.bytes;
    model.model.facts.emplace().single_file = each.single_file;
    const auto weights = each.components.size() -
                         static_cast<std::size_t>(std::ranges::count(each.components, model::configuration_name));
    for (const std::string& name : each.components) {
      model::Component component;
      component.name = name;
      component.segment_bytes = name == model::configuration_name ? 5_MiB : Bytes{each.bytes.value / weights};
      model.model.components.push_back(component);
      model.layouts.push_back(std::make_shared<const model::SegmentLayout>());
    }
    scanned.models.push_back(std::move(model));
  }
  later(milliseconds(random_.between(1, 50)), scanned);
}

void World::carry_out(out::FillSegment& effect) {
  const Nanos wait = milliseconds(handlers_.between(50, 1500));
  const std::pair key{effect.model_id.str(), effect.component};
  if (strikes("fill_failed", handlers_, 30'000)) {
    return later(wait, in::SegmentFilled{effect.model_id, effect.component,
                                         fail(ErrorCode::unavailable, "the disk did not answer")});
  }
  after(wait, [this, life = life_, effect, key] {
    if (life != life_) return;
    const std::string name = cat(key.first, "/", key.second);
    segments_[key] = cat(name, "#", ++fills_made_);
    input(in::SegmentFilled{effect.model_id, effect.component, sha256_hex(name), segments_[key]});
  });
}

void World::carry_out(out::OpenPixels& effect) {
  after(milliseconds(2), [this, life = life_, effect] {
    if (life != life_) return;
    input(in::PixelsOpened{effect.job_id, keep(effect.source.sha256)});
  });
}

void World::carry_out(out::StorePixels& effect) {
  const Content content = handles_.at(effect.handle);
  handles_.erase(effect.handle);
  const bool full = strikes("output_disk_full", disk_random_, 10'000);
  after(milliseconds(disk_random_.between(1, 40)), [this, life = life_, effect, content, full] {
    if (content != effect.expected.sha256) return violation("pixels of another image were stored");
    if (!full) outputs_.insert(content);  // the file is there even when the orchestrator is not
    rolled_back_.erase(content);          // what becomes of this file is another question
    if (life != life_) return;
    when_awake([this, effect, content, full] {
      const std::string job = effect.job_id.str();
      if (!full) stored_at_[{job.substr(0, job.find('/')), content}] = {++stored_, wall()};
      input(in::PixelsStored{effect.job_id, effect.attempt,
                             full ? Result<ImageBuffer>(fail(ErrorCode::resource_exhausted, "no space left"))
                                  : Result<ImageBuffer>(effect.expected)});
    });
  });
}

void World::carry_out(out::RemoveOutput& effect) {
  judge_removal(effect);
  if (now_ >= outputs_refuse_until_ && !healed_ && strikes("output_disk_refuses", sagas_, 400'000)) {
    outputs_refuse_until_ = now_ + seconds(sagas_.between(1, 90));  // some refuse for longer than it is tried
  }
  const bool refused = !healed_ && now_ < outputs_refuse_until_;
  if (!refused) {
    fault("output_rolled_back");
    outputs_.erase(effect.sha256);
  }
  later(1,
        in::OutputRemoved{effect.saga_id, effect.sha256,
                          refused ? Status(fail(ErrorCode::unavailable, "the file system is read-only")) : Status()});
}

void World::carry_out(out::Publish& effect) {
  if (effect.rev != Rev{}) {  // S14, S15: in order and once, over all lives
    if (effect.rev <= last_published_) violation(cat("rev ", effect.rev.value, " was published again or too late"));
    last_published_ = effect.rev;
    if (effect.rev.value > written_.value) {
      violation(cat("S4: rev ", effect.rev.value, " is said, and ", written_.value, " is on disk"));
    }
  }
  for (const CommitEvent& event : effect.events) {
    trace("event", cat(effect.rev.value, " ", event.type, " ", event.subject));
    if (event.type == Saga::document_name) note_saga(event);
    if (event.type == "saga_parked") note_parked(event);
    if (event.type == "output_rolled_back") note_rolled_back(event);
    if (event.type == "model_load_committed") ++report_.loads;
  }
}

HandleId World::keep(Content content) {
  handles_[++handles_made_] = std::move(content);
  return handles_made_;
}

}  // namespace lockstep::sim
