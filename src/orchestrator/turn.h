#pragma once

// One turn of the orchestrator: what a handler may read, and where it puts what it wants.

#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "operations/views.h"
#include "orchestrator/effect.h"
#include "orchestrator/input.h"
#include "orchestrator/live.h"
#include "orchestrator/settings.h"
#include "propagation/facts.h"
#include "propagation/framing.h"
#include "runtime/plan.h"

namespace lockstep {

struct Turn {
  const Tables& tables;
  const Settings& settings;
  Live& live;
  Nanos now;
  WallTime wall;
  Change change;
  Plan<Effect> plan;

  template <class What>
  void effect(What what) {
    plan.effect(std::move(what));
  }
  void log(std::string text) { effect(out::Log{false, std::move(text)}); }
  void warn(std::string text) { effect(out::Log{true, std::move(text)}); }
  /// Something people may watch that is not durable. session: see CommitEvent.
  template <class Body>
  void publish(std::string type, std::string subject, const Body& body, std::optional<std::string> session = {}) {
    CommitEvent event{std::move(type), std::move(subject), RawJson{json::to_text(body)}, std::move(session)};
    effect(out::Publish{Rev{}, wall, {std::move(event)}});
  }
};

/// Frames one message for a worker; its number it gets when it leaves its lane.
template <class Body>
void send_placed(Turn& turn, const WorkerRecord& worker, FrameType type, const Body& body, Operation operation,
                 std::vector<out::Attachment> attachments, Placed placed) {
  WorkerLive& live = turn.live.workers[worker.worker_id];
  Envelope envelope;
  envelope.id = cat("o", turn.live.epoch.value, ".", ++turn.live.messages_made);
  envelope.source = {Side::orchestrator, worker.worker_id, worker.incarnation};
  envelope.epoch = turn.live.epoch;
  envelope.time = Timestamp::of(turn.wall);
  envelope.urgency = placed.lane;
  envelope.op_id = std::move(operation.op_id);
  envelope.attempt = operation.attempt;
  envelope.correlation = std::move(operation.correlation);
  Frame frame = to_frame(type, std::move(envelope), body, attachments.size(), live.form);
  turn.effect(out::SendFrame{worker.worker_id, worker.incarnation, std::move(frame), std::move(attachments), live.link,
                             std::move(placed.passage)});
}

/// In the lane that §2.7's table says.
template <class Body>
void send(Turn& turn, const WorkerRecord& worker, FrameType type, const Body& body, Operation operation = {},
          std::vector<out::Attachment> attachments = {}) {
  Placed placed = place(type, body, operation.op_id);
  send_placed(turn, worker, type, body, std::move(operation), std::move(attachments), std::move(placed));
}

/// The operations of the path, by the names that both sides use.
inline Operation transaction_operation(const TransactionId& id) { return {id.str(), 0, {.transaction = id}}; }
inline Operation load_operation(const TransactionId& id) { return {cat("load:", id.str()), 0, {.transaction = id}}; }
inline Operation release_operation(const ModelId& id) { return {cat("release:", id.str()), 0, {}}; }
inline Operation calibrate_operation(const DeviceId& id) { return {cat("calibrate:", id.str()), 0, {}}; }
inline Operation run_operation(const std::string& run, std::uint32_t attempt, const RequestId& request) {
  return {run, attempt, {.transaction = {}, .session = {}, .request = request}};
}

// The rooms of a turn; each takes one kind of input. All of them run on the loop's thread.
void on_started(Turn& turn, const in::Started& input);
void on_worker_dialed(Turn& turn, const in::WorkerDialed& input);
void on_worker_spawned(Turn& turn, const in::WorkerSpawned& input);
void on_worker_gone(Turn& turn, const in::WorkerGone& input);
void on_worker_dying(Turn& turn, const in::WorkerDying& input);
void on_link_closed(Turn& turn, const in::LinkClosed& input);
void on_timer(Turn& turn, const in::TimerFired& input);
void on_stop(Turn& turn);
void on_frame(Turn& turn, const in::FrameArrived& input);
void on_models_scanned(Turn& turn, const in::ModelsScanned& input);
void on_segment_filled(Turn& turn, const in::SegmentFilled& input);
void on_pixels_opened(Turn& turn, const in::PixelsOpened& input);
void on_pixels_stored(Turn& turn, const in::PixelsStored& input);
void on_generate(Turn& turn, const in::Generate& input);
void on_check(Turn& turn, const in::Check& input);
void on_view(Turn& turn, const in::View& input);
void on_cancel(Turn& turn, const in::Cancel& input);
void on_restart_worker(Turn& turn, const in::RestartWorker& input);
void on_calibrate_device(Turn& turn, const in::CalibrateDevice& input);
/// Into the queue of loads and unloads, behind those of its priority.
void add_order(Turn& turn, ModelOrder order);
/// By priority, then by arrival.
std::vector<JobId> orders_in_turn(const Turn& turn);
/// Whether a load runs that this job or order waits for.
bool load_in_flight(const Turn& turn, const JobId& job);
/// Of the order or of the request that a load is for.
AllocationPriority load_priority(const Turn& turn, const JobId& wanted_by);
/// "loads": the queue of loads and unloads that were asked for, as JSON.
std::optional<std::string> load_queue_text(const Turn& turn, const std::string& path);
void on_load_model(Turn& turn, const in::LoadModel& input);
void on_unload_model(Turn& turn, const in::UnloadModel& input);
void on_verify_model(Turn& turn, const in::VerifyModel& input);
void on_files_hashed(Turn& turn, const in::FilesHashed& input);
void on_add_model(Turn& turn, const in::AddModel& input);
void on_remove_model(Turn& turn, const in::RemoveModel& input);
void on_files_moved(Turn& turn, const in::FilesMoved& input);
void on_keep_journal(Turn& turn, const in::KeepJournal& input);
void on_journal_kept(Turn& turn, const in::JournalKept& input);
void on_set(Turn& turn, const in::Set& input);
void on_system_memory(Turn& turn, const in::SystemMemory& input);
void on_reply_gone(Turn& turn, const in::ReplyGone& input);

// The decisions that settle() tries in this order; each returns true when it put something into the turn.
/// Pixels of jobs that have ended are kept for nobody, however they ended.
bool settle_pixels(Turn& turn);
bool settle_answers(Turn& turn);
bool settle_deliveries(Turn& turn);
bool settle_calibrations(Turn& turn);
bool settle_workers(Turn& turn);
bool settle_memory(Turn& turn);
bool settle_models(Turn& turn);
bool settle_jobs(Turn& turn);

/// The answer to a hello. From here on events cross in the form that both sides read.
void welcome_worker(Turn& turn, const WorkerRecord& worker, const device::Device& device, const Hello& hello);
/// The worker lives, without a link: it has until a deadline to come back.
void await_worker(Turn& turn, const WorkerRecord& worker);
/// Ends a worker that must not go on; its process handle reports the rest.
void end_worker(Turn& turn, const WorkerId& worker, const std::string& why);
/// preparing -> aborted, and nothing was written: the worker is told, and the job that it was for pays. reason: for
/// people who look at the transaction.
void abort_load(Turn& turn, const TransactionId& id, TransactionEvent event, const std::string& reason,
                const Error& why);
/// preparing + participant_lost -> aborted, and nothing was written: what it promised over a link that ended.
void drop_intents(Turn& turn, const WorkerId& worker);
/// It is ready, can be told something now, and has nothing to do.
bool is_idle(const Turn& turn, const WorkerRecord& worker);
/// An idle worker is busy with this from now on. job: empty when it is for none.
void give_task(Turn& turn, const WorkerRecord& worker, std::string task, const JobId& job);
/// The deadline for the next sign of progress of the worker's task.
void expect_progress(Turn& turn, const WorkerId& worker);
void task_over(Turn& turn, const WorkerId& worker);
/// An answer to this operation: the task is over, or one image of its batch. Nothing, where none is awaited.
void run_over(Turn& turn, const WorkerId& worker, const std::string& op_id);
/// The load is taken back and the job it was for pays: it waits for another try, or fails with the reason.
void blame_load(Turn& turn, const JobId& wanted_by, const Error& why);
void mark_broken(Turn& turn, const ModelId& id, const std::string& reason);
/// The files of the model are others than before: what was made of the old ones is used no more.
void forget_copies(Turn& turn, const ModelId& id);
/// Whether a worker can run this kind of model at all; invalid_argument says why not.
Status loadable(const model::Model& model);
ModelView model_view(const Turn& turn, const model::Model& model);
/// The order has ended, well or with an error; whoever waits is told.
void end_order(Turn& turn, const JobId& order, const Status& status);
/// The cache has no such segment any more.
void forget_segment(Turn& turn, const std::pair<ModelId, std::string>& key);
/// Drops the least recently used segment that nothing pins; false when there is none.
/// unused_since: only one that was not used after it. spare_queued: none that one of the next images needs.
bool drop_unpinned_segment(Turn& turn, Nanos unused_since, bool spare_queued);
void drop_pixels(Turn& turn, const JobId& job);
/// An image failed a quality gate: its job has ended, and the others of its request as its error_handling says (§3.4).
void gate_failed(Turn& turn, const processing::Request& request, const processing::Job& job,
                 const processing::Failure& why);
/// The error body of the HTTP side, in the OpenAI shape.
void reply_error(Turn& turn, ReplyId reply, const Error& error, bool again = false);
/// The answer of a request that has ended, made of its rows: each time the same.
void reply_end(Turn& turn, ReplyId reply, const processing::Request& request, bool as_url, bool again);

}  // namespace lockstep
