#pragma once

// Volatile state: links, tasks in flight, the cache, who waits for an answer. It is rebuilt after a start; no decision
// rests on it alone unless it can be derived again.

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "domains/memory/history.h"
#include "events/device_events.h"
#include "events/envelope.h"
#include "events/link_messages.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/processing_events.h"
#include "liveness/breaker.h"
#include "operations/coordination.h"
#include "operations/model_load.h"
#include "orchestrator/counters.h"
#include "orchestrator/effect.h"
#include "orchestrator/transaction_log.h"
#include "propagation/facts.h"

namespace lockstep {

/// One worker as it is now. `task` is what it was told to do last and has not answered: a run id, a batch id,
/// "load:<tx>", "release:<model>", "calibrate:<device>"; empty when it is idle.
struct WorkerLive {
  LinkId link = 0;  // of the present connection; frames of another one are too late
  bool link_open = false;
  bool awaited = false;  // it lives, without a link, and may come back
  bool unseen = false;   // of an earlier epoch, and has not come back yet: how it ended says nothing about a job
  std::string token;     // for its welcome
  Form form = Form::json;  // of what may cross packed over the present link
  bool silent = false;   // no heartbeat for LivenessTiming::silence: nothing new goes there
  std::array<std::uint64_t, 4> sequence_in{};  // of the last frame in each lane
  Nanos heard = 0;
  Nanos restart_at = 0;
  std::string task;
  JobId task_job;                      // of the task; empty for a release and a batch
  std::map<std::string, JobId> batch;  // the runs of a batch that it has not answered
  std::uint32_t batch_size = 0;        // with those that it has; 0: the task is none
  bool kill_sent = false;
  bool died_by_itself = false;  // its life line broke before anybody ended it
  std::string end_reason;       // why we ended it, for people
  std::uint64_t frames_refused = 0;
  std::uint64_t refused_there = 0;  // of our frames, because they tell of facts of the worker's
  std::optional<DeviceHealthUpdate> health;
  std::optional<VramUsageUpdate> memory;

  /// Whether an answer to this operation is awaited.
  bool works_on(const std::string& op_id) const { return (!task.empty() && task == op_id) || batch.contains(op_id); }
  /// Whom the operation is for; empty for a release, and for what nobody awaits.
  JobId job_of(const std::string& op_id) const {
    if (const auto run = batch.find(op_id); run != batch.end()) return run->second;
    return !task.empty() && task == op_id ? task_job : JobId();
  }
};

/// The starts of one worker since it was last ready. On purpose not durable: liveness/breaker.h.
struct WorkerStarts {
  Breaker breaker;
  std::string reason;      // when the breaker is open
  std::string last_words;  // the end of its log then
};

/// A command that waits until what comes before it is applied (§2.8).
struct HeldCommand {
  FrameType type;
  RawJson body;
  Operation operation;
  Placed placed;
  Rev rev;  // that decided it
};

/// What went to one worker over its present link of what it shall know, and is not answered yet.
struct DeliveryLane {
  struct Told {
    Rev rev;  // 0: it is to be sent once more, lifted into this lane
    Urgency urgency = Urgency::p2_normal;
  };
  std::map<std::string, Told> told;  // by the key of the row
  std::set<std::string> unanswered;  // op_ids of the frames
  std::uint64_t frames_made = 0;
  int sent = 0;        // how often the oldest that is unanswered was sent; 0: nothing is out
  Nanos due = 0;       // when that is sent again
  bool again = false;  // what is unanswered is to be sent once more
  double tokens = 0;
  Nanos refilled = 0;
  bool used = false;
  std::vector<HeldCommand> held;
};

/// A calibration that a person asked for and that has not ended. In memory only, like an order of a load.
struct Calibration {
  bool begun = false;  // its worker was told
  std::vector<ReplyId> replies;
};

/// What the samples of one device say over time.
struct DeviceSamples {
  std::uint64_t errors_mark = 0;  // the count when the window began
  Nanos window_began = 0;
  std::uint32_t over_ledger = 0;  // samples in a row in which the worker used more than its ledger
  bool leak_told = false;
  double step_seconds = 0;  // of the newest inference; 0 when none was measured
  Nanos busy_until = 0;     // by that measure
  Bytes used_max;           // high-water mark of what the worker reported
  // None says when it was taken, and one at most waited in its lane: the second in a row that finds the worker idle and
  // its models the same is of that time.
  bool idle = false;                 // at the newest one, in this life of the worker
  Bytes models;                      // what was in use at that one
  std::optional<QuietSample> quiet;  // the newest of two such
};

/// RAM as it was sampled last, and what is done about it.
struct SystemRam {
  std::optional<in::SystemMemory> sample;
  std::vector<memory::EmergencyStep> steps;
  std::map<std::string, Bytes> high_water;  // by purpose
  memory::UsageHistory history;
  bool cache_told = false;  // workers know what the cache holds
};

enum class SegmentState { filling, ready, failed };
BOOST_DESCRIBE_ENUM(SegmentState, filling, ready, failed)

struct SegmentLive {
  SegmentState state = SegmentState::filling;
  Bytes size;
  std::uint64_t last_used = 0;
  Error error;        // when failed
  Nanos used_at = 0;  // when last_used rose
};
using SegmentKey = std::pair<ModelId, std::string>;

/// Pixels between two workers: the descriptor is ours, so they outlive the worker that made them.
struct Pixels {
  HandleId handle = 0;
  ImageBuffer image;
};

struct Waiting {
  ReplyId reply;
  bool as_url;
};

/// A load or an unload that a person asked for, or a load that a worker's request needs. In memory only: it ends with
/// the connection that waits for it, or with this process; a request that is open orders again. Its name stands where a
/// load names the job that wants it.
struct ModelOrder {
  bool unload = false;
  ModelId model_id;
  WorkerId worker_id;            // empty: any, or all
  std::optional<ReplyId> reply;  // who waits
  std::uint32_t tries = 0;       // loads that were begun
  std::string request_key;       // of the worker's request that it is for; empty: a person's
  AllocationPriority priority = AllocationPriority::normal;
  std::uint64_t number = 0;  // in the order of arrival
  bool held = false;         // memory is short: only critical loads begin; said by settle_models()
};

/// Whose files are being read, component by component.
struct Verification {
  std::size_t next = 0;
  std::vector<std::optional<ReplyId>> replies;
};

/// Of one model, operation and size ("512x512", or empty where the size says nothing). What it took, in this life.
///
/// peak_max    as workers report it: on CUDA with the weights, on a processor what the process grew by
/// beyond_max  of that, what the ledger had not granted: beside the models, on devices with memory of their own
struct OperationCost {
  std::uint64_t runs = 0;
  double seconds = 0;  // of all runs
  double seconds_last = 0;
  Bytes peak_max;
  Bytes beyond_max;
};
using OperationKey = std::tuple<ModelId, std::string, std::string>;

/// What a person following a request wants to see.
struct JobProgress {
  std::string what;  // "loading tiny-sdxl", "inference", "upscaling"
  double percent = 0;
};

struct Live {
  bool started = false;
  bool scanned = false;
  bool stopping = false;
  bool stopped = false;
  bool drain_over = false;  // the limit passed: running tasks are given up
  std::string worker_secret_sha256;
  Epoch epoch;
  Rev rev;
  std::uint64_t requests_made = 0;
  std::uint64_t sessions_made = 0;
  std::uint64_t transactions_made = 0;
  std::uint64_t messages_made = 0;
  std::uint64_t orders_made = 0;
  std::uint64_t uses = 0;  // a clock for least-recently-used
  std::map<WorkerId, WorkerLive> workers;
  std::map<WorkerId, WorkerStarts> starts;
  TransactionLog transactions;
  std::map<JobId, std::string> storing;  // the content that is being written for a job
  LoadIntents intents;
  std::map<SegmentKey, SegmentLive> segments;
  std::map<SegmentKey, std::shared_ptr<const model::SegmentLayout>> layouts;
  std::map<std::pair<ModelId, WorkerId>, std::uint64_t> residency_used;
  std::map<std::pair<ModelId, WorkerId>, ModelRuntimeUpdate> runtimes;  // as the worker told it last
  std::map<JobId, Pixels> pixels;
  std::set<JobId> opening;                                          // pixels on their way from the store
  std::set<JobId> open_jobs;                                        // not ended; derived from the job table
  std::set<std::string> open_sessions;                              // not ended; derived from the session table
  std::map<std::string, std::map<WorkerId, LinkId>> sessions_told;  // who was told of a session, over which link
  std::map<std::string, std::map<WorkerId, SessionProgressUpdate>> session_reports;  // the newest of each
  std::map<JobId, JobProgress> progress;
  std::multimap<RequestId, Waiting> waiting;
  std::map<ReplyId, std::string> keyed;  // commands whose answers are due, and the keys that they came with
  std::map<JobId, ModelOrder> orders;
  bool order_wants_cache = false;  // one of them waits for room in the cache; said by settle_models()
  std::map<ModelId, Verification> verifying;
  std::set<std::pair<ModelId, WorkerId>> stale;  // copies on devices of files that are not the model's any more
  std::set<ModelId> stale_segments;              // the same, in the cache
  std::map<WorkerId, DeliveryLane> deliveries;
  std::set<WorkerId> untold;  // for whom there may be something to tell; derived from the rows
  std::map<DeviceId, DeviceSamples> samples;
  std::map<DeviceId, Calibration> calibrations;
  Dependencies dependencies;  // derived from the table of requests
  std::map<OperationKey, OperationCost> operation_costs;
  SystemRam ram;
  std::optional<in::DataDisk> data_disk;  // as it was sampled last
  bool disk_is_low = false;               // nothing new is accepted
  std::uint64_t allocations_made = 0;
  Counters counters;
};

}  // namespace lockstep
