// Ways in: a worker that dials for the first time, and one that comes back over a new link with everything it holds
// (§3.7, design §6). What it brings is compared with the tables; it is taken back whole, or ended.

#include <algorithm>
#include <optional>

#include "base/digest.h"
#include "base/text.h"
#include "domains/inference/rules.h"
#include "domains/model/rules.h"
#include "domains/postprocessing/rules.h"
#include "domains/processing/rules.h"
#include "events/json_read.h"
#include "operations/model_load.h"
#include "operations/workflow.h"
#include "orchestrator/on_calibration.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/turn.h"

namespace lockstep {

namespace {

using processing::Job;
using processing::JobStage;

constexpr std::size_t worker_name_max = 64;

/// What a stranger says goes into a log only when it can do no harm there.
std::string readable(const std::string& name) { return is_plain_name(name) ? shortened(name) : "(no name)"; }

/// Why a worker is not let in. With `retry` the same hello may succeed later.
struct Refusal {
  std::string reason;
  bool retry = false;
};

void refuse(Turn& turn, const in::WorkerDialed& input, const WorkerId& worker, const Refusal& refusal) {
  for (const HandleId handle : input.handles) turn.effect(out::DropHandle{handle});
  turn.warn(cat("refused a worker that calls itself ", readable(worker.str()), ": ", refusal.reason));
  Envelope envelope;
  envelope.id = cat("o", turn.live.epoch.value, ".", ++turn.live.messages_made);
  envelope.source = {Side::orchestrator, worker, input.frame.header.incarnation};
  envelope.epoch = turn.live.epoch;
  envelope.sequence = 1;
  envelope.time = Timestamp::of(turn.wall);
  envelope.urgency = urgency_row(FrameType::refused, Condition::always).lane;
  envelope.body = RawJson{json::to_text(Refused{refusal.reason, refusal.retry})};
  turn.effect(out::RefuseLink{input.link, to_frame(FrameType::refused, std::move(envelope), 0)});
}

bool is_configured(const Turn& turn, const WorkerId& worker) {
  return std::ranges::any_of(turn.settings.workers, [&](const auto& each) { return each.worker_id == worker; });
}

/// The worker's side of a link that was just accepted. Its hello was frame 1.
WorkerLive& open_link(Turn& turn, const WorkerRecord& worker, const in::WorkerDialed& input, const std::string& token) {
  WorkerLive& live = turn.live.workers[worker.worker_id];
  live.link = input.link;
  live.link_open = true;
  live.awaited = false;
  live.unseen = false;
  live.silent = false;
  live.token = token;
  live.sequence_in.fill(0);
  live.sequence_in[static_cast<std::size_t>(input.frame.header.urgency)] = 1;
  live.heard = turn.now;
  turn.effect(out::AcceptLink{input.link, worker.worker_id, worker.incarnation});
  turn.effect(out::DisarmTimer{cat("rejoin:", worker.worker_id.str())});
  turn.effect(out::DisarmTimer{cat("freeze:", worker.worker_id.str())});
  turn.effect(out::ArmTimer{cat("silence:", worker.worker_id.str()), turn.now + turn.settings.timing.silence});
  turn.effect(out::ArmTimer{cat("start:", worker.worker_id.str()), turn.now + turn.settings.timing.start_deadline});
  return live;
}

// ---- the first time -----------------------------------------------------------------------------------------------

std::optional<Refusal> may_enter(const Turn& turn, const in::WorkerDialed& input, const Hello& hello) {
  const std::string& name = hello.worker_id.str();
  if (name.empty() || name.size() > worker_name_max || !is_plain_name(name)) {
    return Refusal{"worker_id must be 1 to 64 letters, digits, dots, dashes or underscores"};
  }
  if (is_configured(turn, hello.worker_id)) {
    return Refusal{cat("worker_id ", name, " is a worker that this server starts itself; choose another")};
  }
  if (input.peer.origin == Origin::path) {
    const std::string& wanted = turn.live.worker_secret_sha256;
    if (wanted.empty() || !hello.secret || sha256_hex(*hello.secret) != wanted) {
      return Refusal{"the secret is missing or wrong; it stands in the file worker.secret of the data directory"};
    }
  }
  const WorkerRecord* known = turn.tables.liveness.workers.find(name);
  if (known != nullptr && known->state != WorkerState::gone) {
    return Refusal{cat("worker ", name, " is here already, as incarnation ", known->incarnation.value), true};
  }
  if (!hello.device || (hello.device->kind != "cpu" && hello.device->kind != "cuda")) {
    return Refusal{"the hello must offer a device of kind \"cpu\" or \"cuda\""};
  }
  if (hello.device->memory_budget.value == 0) return Refusal{"the offered device's memory_budget must be above 0"};
  return std::nullopt;
}

void enter(Turn& turn, const in::WorkerDialed& input, const Hello& hello) {
  const WorkerRecord* known = turn.tables.liveness.workers.find(hello.worker_id.str());
  WorkerRecord worker = known == nullptr ? WorkerRecord{} : *known;
  worker.worker_id = hello.worker_id;
  worker.device_id = DeviceId(cat(hello.worker_id.str(), "_device"));
  worker.incarnation = worker.incarnation.next();
  worker.state = WorkerState::online;  // registered and hello at once
  worker.origin = input.peer.origin;
  worker.pid = input.peer.pid;
  worker.start_ticks = input.peer.start_ticks;
  worker.token_sha256 = sha256_hex(input.token);
  worker.subscriptions = hello.subscriptions;
  turn.change.put(turn.tables.liveness.workers, worker.worker_id.str(), worker);
  const device::Device device{worker.device_id,
                              worker.worker_id,
                              hello.device->kind == "cuda" ? device::Kind::cuda : device::Kind::cpu,
                              hello.device->memory_budget,
                              device::Availability::offline,
                              "starting"};
  turn.change.put(turn.tables.device.devices, device.device_id.str(), device);
  turn.change.event("worker_joined", worker.worker_id.str(), worker);
  turn.live.workers[worker.worker_id] = WorkerLive{};
  open_link(turn, worker, input, input.token);
  welcome_worker(turn, worker, device, hello);
  turn.log(cat(worker.worker_id.str(), " joined, incarnation ", worker.incarnation.value, ", with a ",
               hello.device->kind, " device of ", to_text(device.memory_budget)));
}

// ---- coming back --------------------------------------------------------------------------------------------------

std::optional<Refusal> may_return(const Turn& turn, const in::WorkerDialed& input, const Hello& hello,
                                  const Rejoin& rejoin) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(hello.worker_id.str());
  const Incarnation incarnation = input.frame.header.incarnation;
  if (rejoin.cluster_id != turn.tables.identity.at("self").cluster_id) {
    return Refusal{"it belongs to another server's cluster"};
  }
  if (rejoin.last_epoch > turn.live.epoch) {
    return Refusal{cat("it has seen epoch ", rejoin.last_epoch.value, ", this is ", turn.live.epoch.value,
                       ": the journal here is older than the worker")};
  }
  if (worker == nullptr || worker->incarnation != incarnation || worker->state == WorkerState::gone ||
      worker->state == WorkerState::ending || turn.live.workers[hello.worker_id].kill_sent) {
    return Refusal{cat("incarnation ", incarnation.value, " is over")};
  }
  if (turn.live.workers[hello.worker_id].link > input.link) {
    return Refusal{"a newer connection of it is open", true};  // this hello was slower than the next one
  }
  const bool same_process = input.peer.origin == Origin::tls ||
                            (worker->pid == input.peer.pid && worker->start_ticks == input.peer.start_ticks);
  if (sha256_hex(rejoin.token) != worker->token_sha256 || !same_process) {
    return Refusal{cat("it is not the process of incarnation ", incarnation.value)};
  }
  return std::nullopt;
}

/// What the worker holds against what the tables say, one call for each worker that returns.
class Reunion {
 public:
  Reunion(Turn& turn, const WorkerRecord& worker, const Rejoin& rejoin)
      : turn_(turn), worker_(worker), rejoin_(rejoin) {}

  /// A sentence when the two cannot be brought together; nothing was changed then.
  std::optional<std::string> contradiction() const {
    for (const auto& [key, entry] : turn_.tables.model.residencies.entries()) {
      const model::Residency& row = entry.row;
      if (row.worker_id != worker_.worker_id) continue;
      const Holding* held = holding(row.model_id);
      if (held != nullptr && held->transaction_id != row.transaction_id) {
        return cat("it holds ", row.model_id.str(), " by another transaction");
      }
      const bool load_runs = runs(load_operation(row.transaction_id).op_id, 0);
      if (row.state == model::ResidencyState::loading && !load_runs && held != nullptr &&
          held->state != HoldingState::loaded) {
        return cat("the order to load ", row.model_id.str(), " was lost");
      }
      if (row.state == model::ResidencyState::loaded && (held == nullptr || held->state != HoldingState::loaded)) {
        return cat("it should hold ", row.model_id.str(), " and does not");
      }
    }
    for (const Holding& held : rejoin_.holdings) {
      if (held.state == HoldingState::promised) {
        if (!is_decided(held)) continue;
        return cat("the decision of ", held.transaction_id.str(), " was lost");
      }
      if (model::residency(turn_.tables.model, held.model_id, worker_.worker_id) == nullptr) {
        return cat("it holds ", held.model_id.str(), ", which the ledger does not know");
      }
    }
    return std::nullopt;
  }

  /// After the welcome was sent. Everything goes into the turn's commit.
  void settle() {
    settle_residencies();
    settle_jobs();
    for (const HeldTask& task : rejoin_.tasks) {
      if (live().works_on(task.op_id)) continue;
      // Work that nobody waits for any more. The worker is busy until it has answered.
      if (live().task.empty()) take_up(task.op_id, {});
      if (is_calibrating(turn_, worker_, task.op_id)) continue;  // it answers soon, and is worth having
      send(turn_, worker_, FrameType::task_cancel, TaskCancel{}, {task.op_id, task.attempt, {}});
    }
    for (const Holding& held : rejoin_.holdings) {
      if (held.state != HoldingState::promised) continue;
      send(turn_, worker_, FrameType::transaction_abort, TransactionDecision{held.transaction_id},
           transaction_operation(held.transaction_id));  // presumed: the replay is over, so silence is final
    }
  }

  /// Segments whose memory is the one that was filled here once are the cache's again.
  void take_segments(const in::WorkerDialed& input) {
    for (std::size_t i = 0; i < input.handles.size(); ++i) {
      const HandleId handle = input.handles[i];
      const memory::Segment* row = i < rejoin_.segments.size() ? segment_row(rejoin_.segments[i]) : nullptr;
      const bool same = row != nullptr && i < input.identities.size() && !row->identity.empty() &&
                        row->identity == input.identities[i] && row->sha256 == rejoin_.segments[i].sha256;
      const SegmentKey key = same ? SegmentKey{row->model_id, row->component} : SegmentKey{};
      if (!same || turn_.live.segments.contains(key)) {
        turn_.effect(out::DropHandle{handle});
        continue;
      }
      turn_.live.segments[key] = {SegmentState::ready, row->bytes, ++turn_.live.uses, {}};
      turn_.live.ram.cache_told = false;
      turn_.effect(out::AdoptSegment{row->model_id, row->component, handle});
    }
  }

 private:
  WorkerLive& live() { return turn_.live.workers[worker_.worker_id]; }
  const Holding* holding(const ModelId& model) const {
    const auto place = std::ranges::find_if(rejoin_.holdings, [&](const Holding& each) {
      return each.model_id == model && each.state != HoldingState::promised;
    });
    return place == rejoin_.holdings.end() ? nullptr : &*place;
  }
  /// Decided means decided, also when a person has ended the decision: then it is the ledger that still says so.
  bool is_decided(const Holding& promise) const {
    const model::Residency* row = model::residency(turn_.tables.model, promise.model_id, worker_.worker_id);
    return turn_.tables.transactions.decisions.contains(promise.transaction_id.str()) ||
           (row != nullptr && row->transaction_id == promise.transaction_id);
  }
  bool runs(const std::string& op_id, std::uint32_t attempt) const {
    return std::ranges::any_of(rejoin_.tasks,
                               [&](const HeldTask& each) { return each.op_id == op_id && each.attempt == attempt; });
  }
  const memory::Segment* segment_row(const HeldSegment& held) const {
    return turn_.tables.memory.segments.find(memory::segment_key(held.model_id, held.component));
  }
  void take_up(const std::string& op_id, const JobId& job) {
    live().task = op_id;
    live().task_job = job;
    expect_progress(turn_, worker_.worker_id);
  }

  void settle_residencies() {
    for (const auto& [key, entry] : turn_.tables.model.residencies.entries()) {
      const model::Residency& row = entry.row;
      if (row.worker_id != worker_.worker_id) continue;
      const std::string load = load_operation(row.transaction_id).op_id;
      const std::string release = release_operation(row.model_id).op_id;
      const Holding* held = holding(row.model_id);
      switch (row.state) {
        case model::ResidencyState::loading:
          if (runs(load, 0)) {
            take_up(load, row.wanted_by);
            end_transaction(turn_.tables, row.transaction_id, TransactionEvent::acknowledged, turn_.change);
          } else if (held != nullptr) {
            finish_load(turn_.tables, row, turn_.wall, turn_.change);
          } else {
            const std::string why = "its load failed while the orchestrator was away";
            load_fails(turn_, row.transaction_id, "copy_failed", why);
            await_unload(turn_.tables, row, why, turn_.wall, turn_.change);
            undo_load(turn_.tables, row, TransactionEvent::acknowledged, why, turn_.change);
          }
          break;
        case model::ResidencyState::loaded:
          end_transaction(turn_.tables, row.transaction_id, TransactionEvent::acknowledged, turn_.change);
          break;
        case model::ResidencyState::releasing:
          if (held == nullptr) {
            finish_release(turn_.tables, row, turn_.change);
          } else {
            if (!runs(release, 0)) {  // the order was lost
              send(turn_, worker_, FrameType::model_release, ModelRelease{row.model_id},
                   release_operation(row.model_id));
            }
            take_up(release, {});
          }
          break;
      }
    }
  }

  void settle_jobs() {
    std::map<std::string, JobId> runs_here;
    for (const auto& [key, entry] : turn_.tables.processing.jobs.entries()) {
      const Job& job = entry.row;
      const bool inferring = job.stage == JobStage::inferring;
      if (job.worker_id != worker_.worker_id || (!inferring && job.stage != JobStage::postprocessing)) continue;
      const std::string run =
          inferring ? inference::run_id(job.job_id, job.attempt) : postprocessing::run_id(job.job_id, job.attempt);
      if (runs(run, job.attempt)) {
        runs_here.emplace(run, job.job_id);
        if (inferring) image_began(turn_, job.job_id, run, job.attempt, worker_);
      } else {
        // The order or its answer was lost with the link: the next attempt does it again.
        turn_.change.put(turn_.tables.processing.jobs, key, processing::after(job, processing::JobEvent::worker_lost));
      }
    }
    if (runs_here.size() == 1) take_up(runs_here.begin()->first, runs_here.begin()->second);
    if (runs_here.size() < 2) return;
    take_up(cat("batch of ", runs_here.begin()->first), {});
    live().batch_size = static_cast<std::uint32_t>(runs_here.size());
    live().batch = std::move(runs_here);
  }

  Turn& turn_;
  const WorkerRecord& worker_;
  const Rejoin& rejoin_;
};

void come_back(Turn& turn, const in::WorkerDialed& input, const Hello& hello, WorkerRecord worker) {
  const Rejoin& rejoin = *hello.rejoin;
  WorkerLive& live = turn.live.workers[worker.worker_id];
  Reunion reunion(turn, worker, rejoin);
  if (const auto why = reunion.contradiction()) {
    refuse(turn, input, worker.worker_id, {*why});
    return end_worker(turn, worker.worker_id, *why);
  }
  drop_intents(turn, worker.worker_id);  // the old link may not have been seen to end
  task_over(turn, worker.worker_id);
  worker.state = *worker_lifecycle.next(worker.state, WorkerEvent::rejoined);
  turn.change.put(turn.tables.liveness.workers, worker.worker_id.str(), worker);
  turn.change.event("worker_rejoined", worker.worker_id.str(), worker);
  // The same token as before: a new one in a welcome that is lost would make the worker a stranger to us.
  open_link(turn, worker, input, rejoin.token);
  welcome_worker(turn, worker, turn.tables.device.devices.at(worker.device_id.str()), hello);
  reunion.settle();
  calibration_resumed(turn, worker);
  reunion.take_segments(input);
  turn.log(cat(worker.worker_id.str(), " is back, incarnation ", worker.incarnation.value, ", with ",
               rejoin.holdings.size(), " models", live.task.empty() ? "" : cat(", working on ", live.task)));
}

}  // namespace

void welcome_worker(Turn& turn, const WorkerRecord& worker, const device::Device& device, const Hello& hello) {
  WorkerLive& live = turn.live.workers[worker.worker_id];
  const std::string& ours = turn.settings.schema_digest;
  live.form = !ours.empty() && hello.schema_digest == ours ? Form::packed : Form::json;
  const auto beat = static_cast<std::uint64_t>(turn.settings.timing.heartbeat / milliseconds(1));
  // A segment that is mapped for as long as its model is loaded costs nothing to keep; a copy on a GPU does.
  // Over a network nothing could be handed back but a copy.
  const bool keep_segments = device.kind == device::Kind::cpu && worker.origin != Origin::tls;
  send(turn, worker, FrameType::welcome,
       Welcome{device.device_id, device.memory_budget, beat, turn.tables.identity.at("self").cluster_id,
               live.token, keep_segments, ours.empty() ? std::nullopt : std::optional(ours)});
}

void on_worker_dialed(Turn& turn, const in::WorkerDialed& input) {
  const auto envelope = from_frame(input.frame);
  const bool is_hello = input.frame.header.type == static_cast<std::uint16_t>(FrameType::hello) &&
                        input.frame.header.sequence == 1 && input.frame.header.epoch == Epoch{};
  if (!is_hello || !envelope) {
    return refuse(turn, input, {}, {envelope ? "the first frame must be a hello" : envelope.error().message});
  }
  const auto hello = read_message<Hello>(*envelope);
  if (!hello) {
    return refuse(turn, input, {}, {cat("a bad hello at \"", hello.error().pointer, "\": ", hello.error().message)});
  }
  const WorkerId& id = hello->worker_id;
  if (!turn.live.started || turn.live.stopping) return refuse(turn, input, id, {"the server is stopping", true});
  if (input.peer.origin == Origin::tls && input.peer.certificate_name != id.str()) {
    return refuse(turn, input, id, {cat("its certificate is for ", readable(input.peer.certificate_name))});
  }
  if (hello->rejoin) {
    if (const auto no = may_return(turn, input, *hello, *hello->rejoin)) return refuse(turn, input, id, *no);
    return come_back(turn, input, *hello, turn.tables.liveness.workers.at(id.str()));
  }
  if (const auto no = may_enter(turn, input, *hello)) return refuse(turn, input, id, *no);
  for (const HandleId handle : input.handles) turn.effect(out::DropHandle{handle});
  enter(turn, input, *hello);
}

}  // namespace lockstep
