#include "sim/world.h"

#include <cstdio>
#include <functional>
#include <optional>
#include <queue>
#include <set>

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"
#include "domains/memory/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"
#include "orchestrator/machine.h"
#include "runtime/loop.h"
#include "sim/random.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::sim {

namespace {

namespace win = worker::in;
namespace wout = worker::out;

/// What a descriptor leads to: pixels by digest, or a segment.
using Content = std::string;

std::string pixels_of(const std::string& prompt, std::uint64_t seed) { return sha256_hex(cat(prompt, "#", seed)); }
std::string processed(const std::string& source) { return sha256_hex(cat("post:", source)); }
/// The planted unsafe ones: a known share of all pixels.
bool is_unsafe(const std::string& source) { return source[0] == '0'; }

/// The durable side of the journal: what a crash leaves.
struct Disk {
  std::vector<SnapshotRow> rows;
  Lsn snapshot_at;
  std::vector<Record> records;
  std::map<std::string, bool> outputs;  // stored by content

  Recovered recover() const { return {snapshot_at, rows, records}; }
  void append(const std::vector<Record>& batch) {
    for (const Record& record : batch) {
      const Lsn last = records.empty() ? snapshot_at : records.back().lsn;
      LOCKSTEP_CHECK(record.lsn == last.next());
      records.push_back(record);
    }
  }
  void snapshot(Lsn at, const std::vector<SnapshotRow>& changed) {
    std::map<std::pair<std::string, std::string>, SnapshotRow> merged;
    for (const SnapshotRow& row : rows) merged[{row.table, row.key}] = row;
    for (const SnapshotRow& row : changed) {
      if (row.value) {
        merged[{row.table, row.key}] = row;
      } else {
        merged.erase({row.table, row.key});
      }
    }
    rows.clear();
    for (auto& [key, row] : merged) rows.push_back(row);
    snapshot_at = at;
    std::erase_if(records, [&](const Record& record) { return record.lsn <= at; });
  }
};

/// A segment's content names its fill, so that two fills of one component are two memories: "base-a/unet#7".
std::string component_of(const Content& segment) { return segment.substr(0, segment.find('#')); }

const WorkerId guest("guest");       // dials by itself, and is started again by somebody else
const std::string secret("sesame");  // what it must know

struct Message {
  Frame frame;
  std::vector<Content> contents;
  LinkId link = 0;
};

/// A worker process. It exists from spawn to death; the machine inside is the real one.
struct Process {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid = 0;
  Bytes budget;
  worker::Machine machine;
  Loop<worker::Machine> loop;
  std::map<worker::HandleId, Content> handles;
  worker::HandleId handles_made = 0;
  std::map<worker::TaskId, bool> cancelled;
  std::map<std::pair<ModelId, std::string>, Content> segments;  // kept
  std::map<std::string, std::uint64_t> timers;
  bool alive = true;
  LinkId link = 0;         // the connection as the worker sees it
  bool link_up = false;    // bytes still cross it
  bool accepted = false;   // the orchestrator has bound it: later frames are the worker's
  bool hung = false;       // its handlers answer no more
  Nanos to_worker_at = 0;  // order inside a direction
  Nanos to_orchestrator_at = 0;

  Process(WorkerId id, Incarnation life, std::int64_t number, Bytes memory)
      : worker_id(id),
        incarnation(life),
        pid(number),
        budget(memory),
        machine({.worker_id = id,
                 .incarnation = life,
                 .pid = number,
                 .version = "sim",
                 .reconnect_limit = seconds(30),
                 .secret = id == guest ? std::optional(secret) : std::nullopt,
                 .device = id == guest ? std::optional(OfferedDevice{"cpu", memory}) : std::nullopt}),
        loop(machine, Lsn{}) {}
};

struct SimModel {
  std::string id;
  model::Kind kind;
  Bytes bytes;
  std::vector<std::string> components;
};

class World {
 public:
  explicit World(const Options& options)
      : options_(options),
        random_(options.seed),
        schedule_(random_.fork()),
        network_(random_.fork()),
        disk_random_(random_.fork()),
        handlers_(random_.fork()),
        crashes_(random_.fork()),
        clients_(random_.fork()) {
    report_.seed = options.seed;
    models_ = {{"base-a", model::Kind::sdxl, 4_GiB, {"unet", "vae"}},
               {"base-b", model::Kind::sdxl, 5_GiB, {"unet", "vae"}},
               {"safety", model::Kind::safety_classifier, 1_GiB, {"model"}},
               {"upscaler", model::Kind::upscaler, 2_GiB, {"model"}}};
    settings_.version = "sim";
    settings_.cache_limit = Bytes{static_cast<std::uint64_t>(random_.between(8, 14)) << 30};
    settings_.timing.progress_deadline = seconds(random_.between(5, 20));
    settings_.timing.start_deadline = seconds(20);
    settings_.breaker.trial_after = seconds(10);  // within the time that a healed system has to finish
    for (int i = 0; i < 2; ++i) {
      settings_.workers.push_back({WorkerId(cat("worker_", i)), DeviceId(cat("gpu_", i)),
                                   i == 0 ? device::Kind::cpu : device::Kind::cuda, 8_GiB});
    }
  }

  Report run() {
    start_orchestrator();
    if (random_.chance(700'000)) start_guest();
    plan_clients();
    if (options_.faults) plan_faults();
    while (!events_.empty() && report_.violations.empty()) {
      const auto next = events_.top();
      if (next.time > options_.duration) healed_ = true;
      if (next.time > options_.duration && at_rest()) break;
      if (next.time > options_.duration + options_.rest_limit) {
        violation(cat("not at rest ", options_.rest_limit / seconds(1), " s after the faults ended: ", unrest()));
        break;
      }
      events_.pop();
      now_ = next.time;
      const auto what = std::move(actions_.at(next.sequence));
      actions_.erase(next.sequence);
      what();
      check_invariants();
    }
    if (report_.violations.empty()) check_end();
    report_.simulated_s = static_cast<double>(now_) / 1e9;
    report_.trace_hash = trace_;
    return report_;
  }

 private:
  // ------------------------------------------------------------------ time, trace, chance

  struct Event {
    Nanos time;
    std::uint64_t tie;
    std::uint64_t sequence;
    bool operator<(const Event& other) const {  // std::priority_queue wants the earliest on top
      return std::tie(time, tie, sequence) > std::tie(other.time, other.tie, other.sequence);
    }
  };

  void at(Nanos time, std::function<void()> what) {
    const std::uint64_t sequence = ++sequence_;
    events_.push({time, schedule_.next(), sequence});
    actions_.emplace(sequence, std::move(what));
  }
  void after(Nanos delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }

  void trace(std::string_view node, std::string_view what) {
    for (const std::string_view text : {node, what}) {
      for (const char c : text) trace_ = (trace_ ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
    }
    trace_ = (trace_ ^ static_cast<std::uint64_t>(now_)) * 0x100000001B3ULL;
    if (options_.trace) {
      std::fprintf(stderr, "%10.6f %-10.*s %.*s\n", static_cast<double>(now_) / 1e9, static_cast<int>(node.size()),
                   node.data(), static_cast<int>(std::min<std::size_t>(what.size(), 400)), what.data());
    }
  }
  void fault(const std::string& kind) {
    ++report_.faults[kind];
    trace("fault", kind);
  }
  bool strikes(Random& stream, std::uint64_t per_million) {
    const bool hit = stream.chance(per_million);  // drawn always, so that healing changes no other stream
    return hit && options_.faults && !healed_;
  }
  void violation(std::string text) {
    trace("VIOLATION", text);
    report_.violations.push_back(cat("seed ", options_.seed, " at ", now_ / 1'000'000, " ms: ", text));
  }
  WallTime wall() const { return {1'700'000'000'000 + now_ / 1'000'000}; }

  // ------------------------------------------------------------------ orchestrator

  void start_orchestrator() {
    const std::uint64_t life = ++life_;
    machine_ = std::make_unique<Orchestrator>(settings_);
    const auto last = machine_->recover(disk_.recover());
    if (!last) return violation(cat("recovery failed: ", last.error().message));
    // S16, S17: the state that was recovered is the state that was live when the record was written.
    const auto known = digests_.find(last->value);
    if (known != digests_.end() && known->second != machine_->digest()) {
      return violation(cat("replay to rev ", last->value, " gives another state than it had in life"));
    }
    if (last->value < acknowledged_.value) {
      return violation(cat("rev ", acknowledged_.value, " was acknowledged, recovered was ", last->value));
    }
    digests_.erase(digests_.upper_bound(last->value), digests_.end());
    loop_ = std::make_unique<Loop<Orchestrator>>(*machine_, *last);
    trace("orchestrator", cat("start, life ", life, ", rev ", last->value));
    input(in::Started{"sim-cluster", sha256_hex(secret)});
  }

  template <class What>
  void input(What what) {
    if (!loop_) return;
    const Lsn before = loop_->applied();
    loop_->input({now_, wall(), std::move(what)});
    for (std::uint64_t lsn = before.value + 1; lsn < loop_->applied().value; ++lsn) digests_.erase(lsn);
    if (loop_->applied() != before) digests_[loop_->applied().value] = machine_->digest();
    flush();
  }
  /// An input that belongs to this life of the orchestrator only.
  template <class What>
  void later(Nanos delay, What what) {
    after(delay, [this, life = life_, what] {
      if (life == life_ && loop_) input(what);
    });
  }

  void flush() {
    while (loop_) {
      auto effect = loop_->next_effect();
      if (!effect) break;
      acknowledged_ = std::max(acknowledged_, loop_->durable());
      if (strikes(crashes_, 250)) return crash_orchestrator("between two effects");
      std::visit([this](auto& each) { carry_out(each); }, effect->what);
    }
    if (!loop_ || syncing_ || loop_->pending() == 0) return;
    syncing_ = true;
    auto batch = std::make_shared<std::vector<Record>>(loop_->take_batch());
    report_.commits += batch->size();
    if (strikes(crashes_, 400)) {
      // The batch is one transaction of the store: it is there whole or not at all.
      if (disk_random_.chance(500'000)) {
        disk_.append(*batch);
        fault("disk_kept_unacknowledged");
      } else {
        fault("disk_lost_unacknowledged");
      }
      return crash_orchestrator("during a sync");
    }
    const Nanos wait =
        strikes(disk_random_, 2000) ? seconds(disk_random_.between(1, 8)) : disk_random_.between(80'000, 2'000'000);
    if (wait > seconds(1) - 1) fault("disk_stall");
    after(wait, [this, life = life_, batch] {
      if (life != life_) return;
      disk_.append(*batch);
      syncing_ = false;
      loop_->durable(batch->back().lsn);
      if (loop_->pending() == 0 && disk_.records.size() > 150) {
        disk_.snapshot(loop_->durable(), machine_->take_changed_rows());
        ++report_.snapshots;
      }
      flush();
    });
  }

  void crash_orchestrator(const std::string& when) {
    fault("orchestrator_crash");
    trace("orchestrator", cat("crash ", when));
    ++life_;
    machine_.reset();
    loop_.reset();
    syncing_ = false;
    timers_.clear();
    handles_.clear();
    segments_.clear();
    waiting_replies_.clear();
    for (auto& [pid, process] : processes_) {
      if (!process->alive || !process->link_up) continue;
      process->link_up = false;
      after(network_.between(1000, 5'000'000),
            [this, number = pid, link = process->link] { close_at_worker(number, link); });
    }
    after(milliseconds(crashes_.between(1, 3000)), [this] {
      if (!loop_) start_orchestrator();
    });
  }

  void carry_out(out::Listen&) {}
  void carry_out(out::Log&) {}
  void carry_out(out::ArmTimer& effect) {
    const std::uint64_t number = ++timers_made_;
    timers_[effect.name] = number;
    at(std::max(now_, effect.deadline), [this, life = life_, name = effect.name, number] {
      const auto place = timers_.find(name);
      if (life != life_ || place == timers_.end() || place->second != number) return;
      timers_.erase(place);
      input(in::TimerFired{name});
    });
  }
  void carry_out(out::DisarmTimer& effect) { timers_.erase(effect.name); }
  void carry_out(out::ScanModels&) {
    in::ModelsScanned scanned;
    for (const SimModel& each : models_) {
      in::ScannedModel model;
      model.model.model_id = ModelId(each.id);
      model.model.kind = each.kind;
      model.model.path = cat("/models/", each.id);
      model.model.availability = model::Availability::available;
      model.model.bytes = each.bytes;
      for (const std::string& name : each.components) {
        model::Component component;
        component.name = name;
        component.segment_bytes = Bytes{each.bytes.value / each.components.size()};
        model.model.components.push_back(component);
        model.layouts.push_back(std::make_shared<const model::SegmentLayout>());
      }
      scanned.models.push_back(std::move(model));
    }
    later(milliseconds(random_.between(1, 50)), scanned);
  }
  void carry_out(out::FillSegment& effect) {
    const Nanos wait = milliseconds(handlers_.between(50, 1500));
    const std::pair key{effect.model_id.str(), effect.component};
    if (strikes(handlers_, 30'000)) {
      fault("fill_failed");
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
  void carry_out(out::DropSegment& effect) { segments_.erase({effect.model_id.str(), effect.component}); }
  void carry_out(out::OpenPixels& effect) {
    after(milliseconds(2), [this, life = life_, effect] {
      if (life != life_) return;
      input(in::PixelsOpened{effect.job_id, keep(effect.source.sha256)});
    });
  }
  void carry_out(out::StorePixels& effect) {
    const Content content = handles_.at(effect.handle);
    handles_.erase(effect.handle);
    const bool full = strikes(disk_random_, 10'000);
    if (full) fault("output_disk_full");
    after(milliseconds(disk_random_.between(1, 40)), [this, life = life_, effect, content, full] {
      if (content != effect.expected.sha256) return violation("pixels of another image were stored");
      if (!full) disk_.outputs[content] = true;  // the file is there even when the orchestrator is not
      if (life != life_) return;
      input(in::PixelsStored{effect.job_id, effect.attempt,
                             full ? Result<ImageBuffer>(fail(ErrorCode::resource_exhausted, "no space left"))
                                  : Result<ImageBuffer>(effect.expected)});
    });
  }
  void carry_out(out::DropHandle& effect) { handles_.erase(effect.handle); }
  void carry_out(out::Publish& effect) {
    for (const CommitEvent& event : effect.events) {
      trace("event", cat(effect.rev.value, " ", event.type, " ", event.subject));
      if (event.type == "model_load_committed") ++report_.transactions;
    }
  }
  void carry_out(out::Stop&) { violation("it stopped, and nobody had asked"); }

  HandleId keep(Content content) {
    handles_[++handles_made_] = std::move(content);
    return handles_made_;
  }

  // ------------------------------------------------------------------ worker processes

  void carry_out(out::SpawnWorker& effect) {
    const WorkerId id = effect.worker.worker_id;
    for (const auto& [pid, process] : processes_) {
      if (process->alive && process->worker_id == id) {  // S8
        return violation(cat(id.str(), " is spawned while its incarnation ", process->incarnation.value, " lives"));
      }
    }
    if (strikes(crashes_, 10'000)) {
      fault("spawn_failed");
      return later(milliseconds(1), in::WorkerGone{id, effect.incarnation, "it could not be started"});
    }
    const std::int64_t pid = ++pids_made_;
    auto process = std::make_unique<Process>(id, effect.incarnation, pid, effect.worker.memory_budget);
    process->link = ++links_made_;
    process->link_up = true;
    process->accepted = true;
    const LinkId link = process->link;
    processes_[pid] = std::move(process);
    input_soon(in::WorkerSpawned{id, effect.incarnation, pid, 1, link, cat("token ", link)});
    after(milliseconds(handlers_.between(1, 20)), [this, pid] { worker_input(pid, win::LinkOpened{}); });
    after(milliseconds(handlers_.between(500, 3000)), [this, pid] { worker_input(pid, win::HandlersReady{}); });
  }
  void start_guest() {
    const std::int64_t pid = ++pids_made_;
    processes_[pid] = std::make_unique<Process>(guest, Incarnation{}, pid, 6_GiB);
    trace("guest", cat("starts as process ", pid));
    after(milliseconds(handlers_.between(1, 20)), [this, pid] { worker_input(pid, win::DialNow{}); });
    after(milliseconds(handlers_.between(500, 3000)), [this, pid] { worker_input(pid, win::HandlersReady{}); });
  }
  template <class What>
  void input_soon(What what) {
    later(1, std::move(what));
  }

  Process* living(std::int64_t pid) {
    const auto place = processes_.find(pid);
    return place == processes_.end() || !place->second->alive ? nullptr : place->second.get();
  }
  Process* living(const WorkerId& id, Incarnation incarnation) {
    for (auto& [pid, process] : processes_) {
      if (process->alive && process->worker_id == id && process->incarnation == incarnation) {
        return process.get();
      }
    }
    return nullptr;
  }

  void end_process(Process& process, const std::string& how) {
    if (!process.alive) return;
    const Incarnation incarnation = process.incarnation;
    trace(process.worker_id.str(), cat("incarnation ", incarnation.value, " ends: ", how));
    process.alive = false;
    process.link_up = false;
    if (network_.chance(700'000)) {
      later(network_.between(1'000, 9'000), in::WorkerDying{process.worker_id, incarnation});
    }
    // What it had sent may still be read before its end is noticed, or not.
    later(network_.between(10'000, 5'000'000), in::WorkerGone{process.worker_id, incarnation, how});
    if (process.worker_id == guest) after(milliseconds(handlers_.between(10, 3000)), [this] { start_guest(); });
  }

  template <class What>
  void worker_input(std::int64_t pid, What what) {
    Process* process = living(pid);
    if (process == nullptr) return;
    process->loop.input({now_, wall(), std::move(what)});
    while (process->alive) {
      auto effect = process->loop.next_effect();
      if (!effect) break;
      if (strikes(crashes_, 300)) {
        fault("worker_crash");
        return end_process(*process, "signal 9 (Killed)");
      }
      std::visit([&](auto& each) { carry_out(*process, each); }, effect->what);
    }
  }

  void close_at_worker(std::int64_t pid, LinkId link) {
    Process* process = living(pid);
    if (process == nullptr || process->link != link) return;
    process->link_up = false;
    process->link = 0;
    worker_input(process->pid, win::LinkClosed{"the other side closed it"});
  }

  // ------------------------------------------------------------------ ways in

  void carry_out(Process& process, wout::Dial&) { connect(process.pid, network_.between(20'000, 2'000'000)); }
  void connect(std::int64_t pid, Nanos delay) {
    after(delay, [this, pid] {
      Process* process = living(pid);
      if (process == nullptr) return;
      if (!loop_ || !machine_->live().started) return worker_input(pid, win::DialFailed{"nobody listens"});
      process->link = ++links_made_;
      process->link_up = true;
      process->accepted = false;
      worker_input(pid, win::LinkOpened{});
    });
  }
  void carry_out(Process& process, wout::DropLink&) {
    process.link_up = false;
    process.link = 0;
  }
  void carry_out(Process& process, wout::KeepSegment& effect) {
    process.segments[{effect.model_id, effect.component}] = process.handles.at(effect.handle);
  }
  void carry_out(Process& process, wout::ForgetSegments& effect) {
    std::erase_if(process.segments, [&](const auto& each) { return each.first.first == effect.model_id; });
  }
  void carry_out(out::AcceptLink& effect) {
    if (effect.worker_id != guest) ++report_.rejoins;
    for (auto& [pid, process] : processes_) {
      if (process->link != effect.link) continue;
      process->accepted = true;
      process->incarnation = effect.incarnation;
    }
  }
  void carry_out(out::RefuseLink& effect) {
    for (auto& [pid, process] : processes_) {
      if (process->link != effect.link) continue;
      auto message = std::make_shared<Message>();
      message->frame = effect.frame;
      message->link = effect.link;
      deliver_to_worker(*process, message);
      const LinkId link = effect.link;
      at(process->to_worker_at + 1, [this, number = pid, link] { close_at_worker(number, link); });
    }
  }
  void carry_out(out::AdoptSegment& effect) {
    const Content content = handles_.at(effect.handle);
    handles_.erase(effect.handle);
    if (component_of(content) != cat(effect.model_id.str(), "/", effect.component))
      violation("a foreign segment was adopted");
    segments_[{effect.model_id.str(), effect.component}] = content;
    ++report_.segments_adopted;
  }

  void carry_out(out::KillWorker& effect) {
    Process* process = living(effect.worker_id, effect.incarnation);
    if (process == nullptr) return;
    after(milliseconds(1), [this, pid = process->pid] {
      if (Process* target = living(pid)) end_process(*target, "signal 9 (Killed)");
    });
  }
  void carry_out(out::ProveGone& effect) {
    after(milliseconds(10), [this, life = life_, effect] {
      if (life != life_) return;
      Process* process = processes_.contains(effect.pid) ? living(effect.pid) : nullptr;
      if (process != nullptr && !effect.kill) return;  // its end will be seen
      if (process == nullptr) {
        return input(in::WorkerGone{effect.worker_id, effect.incarnation, "proven gone by its lock"});
      }
      end_process(*process, "signal 9 (Killed)");  // the proof comes with the next look
      auto again = effect;
      carry_out(again);
    });
  }

  // ------------------------------------------------------------------ links

  Nanos arrival(Nanos& last) {
    Nanos latency = network_.between(20'000, 2'000'000);
    if (strikes(network_, 3000)) {
      fault("network_delay");
      latency += milliseconds(network_.between(100, 3000));
    }
    last = std::max(last + 1, now_ + latency);
    return last;
  }
  bool cut(Process& process) {
    if (!strikes(network_, 800)) return false;
    // One side may learn of it much later than the other, or only when another connection takes its place.
    const bool half_open = network_.chance(300'000);
    fault(half_open ? "link_half_open" : "link_cut");
    process.link_up = false;
    const std::int64_t pid = process.pid;
    after(milliseconds(1), [this, pid, link = process.link] { close_at_worker(pid, link); });
    const Nanos noticed = half_open ? seconds(network_.between(1, 20)) : milliseconds(1);
    later(noticed, in::LinkClosed{process.worker_id, process.incarnation, "connection reset", process.link});
    return true;
  }

  void carry_out(out::SendFrame& effect) {
    Process* process = living(effect.worker_id, effect.incarnation);
    if (process == nullptr || process->link != effect.link || !process->link_up || cut(*process)) return;
    auto message = std::make_shared<Message>();
    message->frame = effect.frame;
    message->link = effect.link;
    for (const out::Attachment& each : effect.attachments) {
      if (each.model_id.empty()) {
        message->contents.push_back(handles_.at(each.handle));
        continue;
      }
      const std::pair key{each.model_id.str(), each.component};
      if (!segments_.contains(key)) return violation(cat("segment ", key.first, "/", key.second, " is sent but gone"));
      message->contents.push_back(segments_.at(key));
    }
    deliver_to_worker(*process, message);
  }
  void deliver_to_worker(Process& process, std::shared_ptr<Message> message) {
    at(arrival(process.to_worker_at), [this, pid = process.pid, message] {
      Process* target = living(pid);
      if (target == nullptr || !target->link_up || target->link != message->link) return;
      win::FrameArrived arrived{message->frame, {}};
      for (const Content& content : message->contents) {
        target->handles[++target->handles_made] = content;
        arrived.handles.push_back(target->handles_made);
      }
      trace(target->worker_id.str(), cat("<- ", message->frame.header.type, " ", message->frame.body));
      worker_input(pid, std::move(arrived));
    });
  }

  void carry_out(Process& process, wout::Send& effect) {
    auto message = std::make_shared<Message>();
    message->frame = effect.frame;
    for (const worker::HandleId id : effect.handles) {
      message->contents.push_back(process.handles.at(id));
      process.handles.erase(id);
    }
    for (const HeldSegment& each : effect.segments) {
      message->contents.push_back(process.segments.at({each.model_id, each.component}));
    }
    message->link = process.link;
    if (!process.link_up || cut(process)) return;
    const bool first = !process.accepted && message->frame.header.sequence == 1;
    at(arrival(process.to_orchestrator_at), [this, life = life_, pid = process.pid, message, first] {
      // A dead process's last bytes, and those of a link that was cut or replaced, arrive late: as long as nothing
      // closed the link on this side they are read, and it is the core that must tell what they are worth.
      if (life != life_ || !loop_) return;
      const Process& sender = *processes_.at(pid);
      const Incarnation incarnation = sender.incarnation;
      std::vector<HandleId> handles;
      for (const Content& content : message->contents) handles.push_back(keep(content));
      trace("orchestrator",
            cat("<- ", sender.worker_id.str(), " ", message->frame.header.type, " ", message->frame.body));
      if (first) {
        in::Peer peer;
        peer.pid = pid;
        peer.start_ticks = 1;
        return input(in::WorkerDialed{message->link, peer, cat("token ", message->link), message->frame, handles,
                                      message->contents});
      }
      input(in::FrameArrived{sender.worker_id, incarnation, message->frame, std::move(handles), message->link});
    });
  }

  // ------------------------------------------------------------------ handlers

  void carry_out(Process& process, wout::ArmTimer& effect) {
    const std::uint64_t number = ++timers_made_;
    process.timers[effect.name] = number;
    at(std::max(now_, effect.deadline), [this, pid = process.pid, name = effect.name, number] {
      const Process* owner = living(pid);
      if (owner != nullptr && owner->timers.at(name) == number) worker_input(pid, win::TimerFired{name});
    });
  }
  void carry_out(Process& process, wout::CancelTask& effect) { process.cancelled[effect.task] = true; }
  void carry_out(Process& process, wout::DropHandle& effect) { process.handles.erase(effect.handle); }
  void carry_out(Process& process, wout::SampleTelemetry&) {
    worker_input_soon(process, win::Telemetry{{}, process.machine.used(), Ratio{0}});
  }
  void carry_out(Process& process, wout::Exit& effect) { end_process(process, effect.reason); }
  template <class What>
  void worker_input_soon(const Process& process, What what) {
    after(1, [this, pid = process.pid, what] { worker_input(pid, what); });
  }

  void carry_out(Process& process, wout::StartTask& effect) {
    std::vector<Content> contents;
    for (const worker::HandleId id : effect.handles) {
      contents.push_back(process.handles.at(id));
      process.handles.erase(id);
    }
    const std::int64_t pid = process.pid;
    if (process.hung) return;
    if (strikes(handlers_, 4000)) {
      fault("handler_hangs");
      process.hung = true;
      return;
    }
    Nanos duration = milliseconds(handlers_.between(30, 1500));
    if (strikes(handlers_, 10'000)) {
      fault("handler_slow");
      duration *= handlers_.between(5, 30);
    }
    if (strikes(handlers_, 15'000)) {
      fault(effect.kind == "load" ? "load_failed" : "handler_failed");
      const char* const code = handlers_.chance(500'000) ? "internal" : "resource_exhausted";
      return after(duration, [this, pid, task = effect.task, code] {
        worker_input(pid, win::TaskFailed{task, code, "simulated failure"});
      });
    }
    run_task(process, effect, contents, duration);
  }

  void run_task(Process& process, const wout::StartTask& start, const std::vector<Content>& contents, Nanos duration) {
    const std::int64_t pid = process.pid;
    const auto finish = [&, this](std::string report, std::optional<Content> result) {
      after(duration, [this, pid, task = start.task, kind = start.kind, report = std::move(report), result] {
        Process* alive = living(pid);
        if (alive == nullptr) return;
        if (alive->cancelled.contains(task) && kind != "load" && kind != "release") {
          return worker_input(pid, win::TaskFailed{task, "cancelled", "it was cancelled"});
        }
        win::TaskDone done{task, report, {}};
        const auto attach = [&] {
          if (!result) return;
          alive->handles[++alive->handles_made] = *result;
          done.handles = {alive->handles_made};
        };
        const bool twice = strikes(handlers_, 5000);
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
        if (name != cat(task->model_id.str(), "/", task->components[i].name)) violation("wrong segment arrived");
        if (task->components[i].sha256 != sha256_hex(name)) violation("wrong digest was promised");
      }
      progress(pid, start.task, duration / 2, json::to_text(LoadReport{task->components[0].name, Ratio{0.5}, 1_GiB}));
      finish(json::to_text(LoadDone{1_GiB, 1.0}), std::nullopt);
    } else if (start.kind == "release") {
      finish(json::to_text(ReleaseDone{Bytes{strikes(handlers_, 5000) ? (fault("release_lies"), 1u) : 0u}}),
             std::nullopt);
    } else if (start.kind == "inference") {
      const auto task = json::from_text<InferenceTask>(start.body);
      LOCKSTEP_CHECK(task.has_value());
      if (!process.machine.holdings().contains(task->model_id)) violation("inference without its model");
      for (std::uint32_t step = 1; step < task->steps; ++step) {
        progress(pid, start.task, duration * step / task->steps,
                 json::to_text(InferenceReport{step, task->steps, 0.01}));
      }
      const std::string pixels = pixels_of(task->prompt, task->seed);
      finish(json::to_text(InferenceDone{1, task->steps, task->width, task->height, 1, pixels, 1_GiB, 5}), pixels);
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
  void progress(std::int64_t pid, worker::TaskId task, Nanos delay, std::string report) {
    after(delay, [this, pid, task, report = std::move(report)] { worker_input(pid, win::TaskProgress{task, report}); });
  }

  // ------------------------------------------------------------------ clients

  void plan_clients() {
    const int count = options_.operations_min + static_cast<int>(clients_.between(0, 30));
    for (int i = 0; i < count; ++i) {
      at(clients_.between(0, options_.duration * 9 / 10), [this] { operate(); });
    }
  }

  void operate() {
    if (!loop_) return after(seconds(1), [this] { operate(); });  // nobody listens: try again, as a person would
    ++report_.operations;
    const ReplyId reply = ++replies_made_;
    if (clients_.chance(100'000) && !accepted_.empty()) {
      auto place = accepted_.begin();
      std::advance(place, clients_.between(0, static_cast<std::int64_t>(accepted_.size()) - 1));
      waiting_replies_[reply] = "cancel";
      trace("client", cat("cancel ", *place));
      return input(in::Cancel{reply, RequestId(*place)});
    }
    if (clients_.chance(100'000)) {
      const std::string picture = sha256_hex(cat("upload ", reply));
      disk_.outputs[picture] = true;
      waiting_replies_[reply] = "check";
      return input(in::Check{reply, {"png", 64, 64, 1, picture}, clients_.chance(500'000)});
    }
    GenerateBody body;
    body.prompt = cat("prompt ", clients_.between(1, 20));
    body.model = clients_.chance(700'000) ? "base-a" : "base-b";
    body.n = static_cast<std::uint32_t>(clients_.between(1, 3));
    body.size = "64x64";
    body.steps = static_cast<std::uint32_t>(clients_.between(1, 6));
    const bool bad = clients_.chance(50'000);
    if (bad) body.model = "no-such-model";
    waiting_replies_[reply] = bad ? "bad" : "generate";
    input(in::Generate{reply, body, clients_.next() >> 2, clients_.chance(500'000)});
  }

  void carry_out(out::Reply& effect) {
    const auto place = waiting_replies_.find(effect.reply);
    if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
    trace("client", cat("reply ", effect.reply, " ", effect.status, " ", effect.body));
    if (place->second == "bad" && effect.status != 404 && effect.status != 503) violation("a bad request was accepted");
    if (effect.status == 202) {
      const std::size_t begin = effect.body.find("req_");
      accepted_.insert(effect.body.substr(begin, effect.body.find('"', begin) - begin));
    }
    waiting_replies_.erase(place);
  }
  void carry_out(out::ReplyImages& effect) {
    const auto place = waiting_replies_.find(effect.reply);
    if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
    waiting_replies_.erase(place);
    accepted_.insert(effect.request_id.str());
    trace("client", cat("images ", effect.request_id.str()));
  }

  // ------------------------------------------------------------------ faults from outside

  void plan_faults() {
    const auto times = [&](std::int64_t max) { return crashes_.between(0, max); };
    for (std::int64_t i = times(4); i > 0; --i) {
      at(crashes_.between(0, options_.duration), [this] {
        if (loop_) crash_orchestrator("by signal");
      });
    }
    for (std::int64_t i = times(6); i > 0; --i) {
      at(crashes_.between(0, options_.duration), [this] {
        for (auto& [pid, process] : processes_) {
          if (!process->alive || crashes_.chance(500'000)) continue;
          fault("worker_killed");
          return end_process(*process, "signal 9 (Killed)");
        }
      });
    }
  }

  // ------------------------------------------------------------------ oracles

  void check_invariants() {
    if (!machine_) return;
    const Tables& tables = machine_->tables();
    for (const auto& [device_key, device_entry] : tables.device.devices.entries()) {
      const device::Device& worker = device_entry.row;
      const Bytes allocated = memory::allocated_on(tables.memory, worker.device_id);
      const Bytes promised = promised_on(machine_->live().intents, worker.device_id);
      if (allocated + promised > worker.memory_budget) {  // S10
        violation(cat("device ", worker.device_id.str(), " has ", (allocated + promised).value, " bytes granted"));
      }
      for (const auto& [pid, process] : processes_) {
        if (!process->alive || process->worker_id != worker.worker_id || !machine_->live().started) continue;
        const WorkerRecord* record = tables.liveness.workers.find(worker.worker_id.str());
        if (record == nullptr || record->incarnation != process->incarnation || !process->link_up) continue;
        // An aborted promise that the worker has not heard of yet is bounded by the budget it votes against.
        if (process->machine.used() > worker.memory_budget)
          violation(cat(worker.worker_id.str(), " holds more than its budget"));
        for (const auto& [model, plan] : process->machine.holdings()) {
          if (tables.model.residencies.contains(cat(worker.worker_id.str(), "/", model.str()))) continue;
          violation(cat(worker.worker_id.str(), " holds ", model.str(), ", which the ledger does not know"));
        }
      }
    }
    for (const auto& [key, entry] : tables.model.residencies.entries()) {  // S8: nothing belongs to a life that is over
      const WorkerRecord* record = tables.liveness.workers.find(entry.row.worker_id.str());
      if (record == nullptr || record->incarnation != entry.row.incarnation || record->state == WorkerState::gone) {
        violation(cat(key, " belongs to an incarnation that is gone"));
      }
      if (!tables.memory.allocations.contains(entry.row.allocation_id.str())) violation(cat(key, " has no allocation"));
    }
    if (tables.memory.allocations.size() != tables.model.residencies.size()) {
      violation(
          cat(tables.memory.allocations.size(), " allocations for ", tables.model.residencies.size(), " residencies"));
    }
    for (const auto& [key, entry] : tables.processing.jobs.entries()) {
      if (entry.row.deaths > processing::deaths_max) violation(cat(key, " had ", entry.row.deaths, " deaths"));
    }
  }

  bool at_rest() {
    if (!loop_ || !machine_->live().started || loop_->pending() > 0 || syncing_) return false;
    if (!machine_->live().open_jobs.empty() || !waiting_replies_.empty()) return false;
    for (const auto& [key, entry] : machine_->tables().liveness.workers.entries()) {
      if (entry.row.state != WorkerState::ready) return false;
    }
    return machine_->tables().transactions.decisions.entries().empty() && machine_->live().intents.empty();
  }
  std::string unrest() {
    if (!loop_) return "no orchestrator";
    std::string out = cat(machine_->live().open_jobs.size(), " open jobs, ", waiting_replies_.size(), " replies due, ",
                          machine_->tables().transactions.decisions.size(), " decisions");
    for (const auto& [key, entry] : machine_->tables().liveness.workers.entries()) {
      out += cat(", ", key, " ", json::enum_name(entry.row.state), " task \"",
                 machine_->live().workers.at(entry.row.worker_id).task, "\"");
    }
    for (const auto& [key, segment] : machine_->live().segments) {
      out += cat(", segment ", key.first.str(), "/", key.second, " ", json::enum_name(segment.state));
    }
    for (const auto& [key, entry] : machine_->tables().model.residencies.entries()) {
      out += cat(", ", key, " ", json::enum_name(entry.row.state));
    }
    return out;
  }

  void check_end() {
    if (!at_rest()) return violation(cat("it ended, but not at rest: ", unrest()));
    const Tables& tables = machine_->tables();
    for (const std::string& id : accepted_) {
      const processing::Request* request = tables.processing.requests.find(id);
      if (request == nullptr) {
        violation(cat(id, " was accepted and is lost"));
      } else if (request->state == processing::RequestState::failed && !request->failure) {
        violation(cat(id, " failed without a reason"));
      }
    }
    for (const auto& [key, entry] : tables.processing.requests.entries()) {
      const processing::Request& request = entry.row;
      ++(request.state == processing::RequestState::completed ? report_.completed : report_.failed);
      for (const processing::Job& job : processing::jobs_of(tables.processing, request.request_id)) {
        const auto* output = tables.postprocessing.outputs.find(job.job_id.str());
        if (request.kind == processing::RequestKind::check || job.stage != processing::JobStage::completed) {
          if (output != nullptr) violation(cat(job.job_id.str(), " has an output, though it did not complete"));
          continue;
        }
        const InferenceParameters& p = request.inference.inference_parameters;
        const std::string pixels = pixels_of(p.prompt, *p.seed + job.index);
        if (output == nullptr || output->image.sha256 != processed(pixels)) {
          violation(cat(job.job_id.str(), " completed without its image"));
        } else if (!disk_.outputs.contains(output->image.sha256)) {
          violation(cat(job.job_id.str(), " completed, but its image is not on disk"));
        } else if (is_unsafe(pixels)) {
          violation(cat(job.job_id.str(), " delivered an unsafe image"));
        }
      }
    }
    if (!handles_.empty()) violation(cat(handles_.size(), " descriptors leaked in the orchestrator"));
    if (!machine_->live().pixels.empty()) violation("pixels are kept for nobody");
    for (const auto& [pid, process] : processes_) {
      if (!process->alive) continue;
      if (!process->handles.empty()) violation(cat(process->worker_id.str(), " leaked a descriptor"));
      if (process->worker_id == guest && !tables.liveness.workers.contains("guest")) continue;
      // L6: the ledger and the worker's own account agree to the byte.
      const WorkerRecord& record = tables.liveness.workers.at(process->worker_id.str());
      const Bytes ledger = memory::allocated_on(tables.memory, record.device_id);
      if (process->machine.used() != ledger) {
        violation(cat(process->worker_id.str(), " holds ", process->machine.used().value, " bytes, the ledger says ",
                      ledger.value));
      }
    }
    // Recovery once more, twice: the same state each time (S18).
    for (int i = 0; i < 2; ++i) {
      Orchestrator again(settings_);
      const auto last = again.recover(disk_.recover());
      if (!last || again.digest() != machine_->digest()) violation("recovery at the end gives another state");
    }
  }

  Options options_;
  Random random_;
  Random schedule_, network_, disk_random_, handlers_, crashes_, clients_;
  Report report_;
  Settings settings_;
  std::vector<SimModel> models_;

  Nanos now_ = 0;
  bool healed_ = false;
  std::priority_queue<Event> events_;
  std::map<std::uint64_t, std::function<void()>> actions_;
  std::uint64_t sequence_ = 0;
  std::uint64_t trace_ = 0xCBF29CE484222325ULL;

  Disk disk_;
  std::map<std::uint64_t, std::string> digests_;  // of the live state after each durable unit
  Lsn acknowledged_;                              // something that depends on it has left
  std::uint64_t life_ = 0;
  std::unique_ptr<Orchestrator> machine_;
  std::unique_ptr<Loop<Orchestrator>> loop_;
  bool syncing_ = false;
  std::map<std::string, std::uint64_t> timers_;
  std::uint64_t timers_made_ = 0;
  std::map<HandleId, Content> handles_;
  HandleId handles_made_ = 0;
  std::map<std::pair<std::string, std::string>, Content> segments_;
  std::uint64_t fills_made_ = 0;
  LinkId links_made_ = 0;

  std::map<std::int64_t, std::unique_ptr<Process>> processes_;
  std::int64_t pids_made_ = 1000;

  std::map<ReplyId, std::string> waiting_replies_;
  ReplyId replies_made_ = 0;
  std::set<std::string> accepted_;
};

}  // namespace

Report run(const Options& options) { return World(options).run(); }

}  // namespace lockstep::sim
