#pragma once

// What people and tools read: plain described structs made from the tables. Shapes of GET /api/v1/...;
// docs/formats/http_api.md.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "domains/model/rules.h"
#include "events/device_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "operations/tables.h"

namespace lockstep {

struct DeviceView {
  DeviceId device_id;
  std::string kind;
  std::string availability;
  std::string reason;
  WorkerId worker_id;
  Bytes memory_budget;
  Bytes memory_allocated;
  std::string reserved_for;  // the operation that holds the device, empty when none
  std::optional<HealthMetrics> health;
  std::optional<DeviceDiagnostics> diagnostics;
  std::optional<VramMetrics> reported_memory;
  std::string health_level;  // of device::HealthLevel
  std::string name;          // as its worker found it; empty before
  std::string driver_version;
  std::vector<std::string> capabilities;
  Ordered<double> capability_scores;
  std::optional<std::string> calibrated_at;  // RFC 3339; absent: never
  std::optional<std::string> calibration;    // "running", or "waiting: " and for what; absent when none was asked for
};
BOOST_DESCRIBE_STRUCT(DeviceView, (),
                      (device_id, kind, availability, reason, worker_id, memory_budget, memory_allocated, reserved_for,
                       health, diagnostics, reported_memory, health_level, name, driver_version, capabilities,
                       capability_scores, calibrated_at, calibration))

/// What a calibration has changed: its answer, and the event device_calibrated.
struct CalibrationView {
  DeviceId device_id;
  std::string calibrated_at;  // RFC 3339
  Ordered<double> scores_before;
  Ordered<double> scores_after;
  std::vector<std::string> capabilities_gained;
  std::vector<std::string> capabilities_lost;
};
BOOST_DESCRIBE_STRUCT(CalibrationView, (),
                      (device_id, calibrated_at, scores_before, scores_after, capabilities_gained, capabilities_lost))

struct WorkerView {
  WorkerId worker_id;
  DeviceId device_id;
  std::string state;  // of WorkerState, or "broken": gone and set aside
  Incarnation incarnation;
  std::int64_t pid = 0;
  std::string task;
  std::string last_end;
  std::uint64_t frames_refused = 0;
  std::map<std::string, std::uint64_t> writes_refused;  // by fact: what it told of and does not own
  std::map<std::string, std::uint64_t> events_not_yet;  // by event: what is its own, and has no effect in this version
  std::uint64_t refused_there = 0;                      // frames of ours that it refused for the same reasons
  std::uint32_t deaths_in_a_row = 0;                    // without a ready in between
  std::string broken_because;                           // why it is set aside; empty when it is not
  std::string last_words;                               // the end of its log when it was set aside
  std::optional<double> next_start_seconds;             // until it is started again; absent when nothing starts it
  std::string event_form;                               // how events and transactions cross: "json" or "packed"
};
BOOST_DESCRIBE_STRUCT(WorkerView, (),
                      (worker_id, device_id, state, incarnation, pid, task, last_end, frames_refused, writes_refused,
                       events_not_yet, refused_there, deaths_in_a_row, broken_because, last_words, next_start_seconds,
                       event_form))

struct WorkersView {
  Rev rev;
  std::vector<WorkerView> workers;
};
BOOST_DESCRIBE_STRUCT(WorkersView, (), (rev, workers))

/// A transaction as `lockstep tx` shows it; documents: in the view of one.
struct DocumentView {
  std::string at;
  std::string name;
  RawJson body;
};
BOOST_DESCRIBE_STRUCT(DocumentView, (), (at, name, body))

struct TransactionView {
  TransactionId transaction_id;
  std::string kind;   // "model_load", "image", "rollback"
  std::string state;  // "preparing", "committing", "committed", "aborted", "compensating", "compensated", "parked"
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  ModelId model_id;
  JobId job_id;  // load: the job or order that wanted it; rollback: the request
  std::string reason;
  std::string began;
  std::string changed;
  std::optional<std::vector<DocumentView>> documents;
  std::optional<TransactionOverride> resolved_by_hand;
  std::optional<SagaRecord> saga;  // while something is left to undo
};
BOOST_DESCRIBE_STRUCT(TransactionView, (),
                      (transaction_id, kind, state, worker_id, incarnation, device_id, model_id, job_id, reason, began,
                       changed, documents, resolved_by_hand, saga))

struct TransactionsView {
  Rev rev;
  std::vector<TransactionView> transactions;
};
BOOST_DESCRIBE_STRUCT(TransactionsView, (), (rev, transactions))

struct ResidencyView {
  WorkerId worker_id;
  DeviceId device_id;
  std::string state;
  std::optional<RuntimeMetrics> runtime;  // as the worker told it last
};
BOOST_DESCRIBE_STRUCT(ResidencyView, (), (worker_id, device_id, state, runtime))

struct CachedComponent {
  std::string component;
  std::string state;
  Bytes bytes;
};
BOOST_DESCRIBE_STRUCT(CachedComponent, (), (component, state, bytes))

/// What is being done with a model because a person asked: "load", "unload", "verify".
struct ModelDoing {
  std::string what;
  std::string detail;  // of a load: what its worker reports
  double percent = 0;
};
BOOST_DESCRIBE_STRUCT(ModelDoing, (), (what, detail, percent))

/// A load or an unload that was asked for and has not ended; loads that requests need have no place here.
struct QueuedLoad {
  std::string order_id;
  ModelId model_id;
  WorkerId worker_id;  // empty: whichever fits, or all
  std::string action;  // "load", "unload"
  AllocationPriority priority = AllocationPriority::normal;
  std::string state;     // "loading", "waiting", "held: memory is short"
  double percent = 0;    // of the load
  std::string asked_by;  // "a person", "a worker"
};
BOOST_DESCRIBE_STRUCT(QueuedLoad, (), (order_id, model_id, worker_id, action, priority, state, percent, asked_by))

/// In the order in which they are served.
struct LoadQueueView {
  std::vector<QueuedLoad> loads;
};
BOOST_DESCRIBE_STRUCT(LoadQueueView, (), (loads))

/// Loads that ended well, images made with it, and when it was last (RFC 3339).
struct UsageView {
  std::uint64_t loads = 0;
  std::uint64_t uses = 0;
  std::optional<std::string> last_loaded;
  std::optional<std::string> last_used;
};
BOOST_DESCRIBE_STRUCT(UsageView, (), (loads, uses, last_loaded, last_used))

/// A registered model that could work beside this one, and whether it is made for it.
struct CompanionView {
  std::string role;
  ModelId model_id;
  bool fits = false;
  std::string problem;  // why not; empty when it does
};
BOOST_DESCRIBE_STRUCT(CompanionView, (), (role, model_id, fits, problem))

/// What can be asked of a model. §1.5
struct CapabilitiesView {
  std::vector<std::string> inference_types;
  std::vector<std::string> operations;
  std::vector<CompanionView> companions;
};
BOOST_DESCRIBE_STRUCT(CapabilitiesView, (), (inference_types, operations, companions))

/// What an operation with a model took since the orchestrator's start. size: "512x512" of an inference, else empty.
struct OperationCostView {
  std::string operation;
  std::string size;
  std::uint64_t runs = 0;
  double seconds_mean = 0;
  double seconds_last = 0;
  Bytes peak_max;
  Bytes predicted_beside_models;  // what a run is expected to take on a device with memory of its own
};
BOOST_DESCRIBE_STRUCT(OperationCostView, (),
                      (operation, size, runs, seconds_mean, seconds_last, peak_max, predicted_beside_models))

struct ModelView {
  model::Model model;
  std::vector<ResidencyView> residencies;
  std::vector<CachedComponent> cached;
  std::optional<std::vector<model::Need>> needs;
  std::optional<std::vector<ModelDoing>> doing;
  std::optional<UsageView> usage;
  std::optional<CapabilitiesView> capabilities;
  std::optional<inference::Tuning> config;  // absent: nothing is set
  std::optional<std::vector<OperationCostView>> costs;
};
BOOST_DESCRIBE_STRUCT(ModelView, (), (model, residencies, cached, needs, doing, usage, capabilities, config, costs))

struct QueueView {
  std::size_t open = 0;
  std::size_t queued = 0;
  std::size_t running = 0;
};
BOOST_DESCRIBE_STRUCT(QueueView, (), (open, queued, running))

struct StatusView {
  std::string version;
  std::string cluster_id;
  Epoch epoch;
  Rev rev;
  bool ready = false;
  std::string not_ready_because;
  QueueView queue;
  Bytes cache_used;
  Bytes cache_limit;
  std::optional<Bytes> disk_free;  // of the data directory's; absent until it was looked at
  std::vector<WorkerView> workers;
  std::vector<DeviceView> devices;
  std::vector<ModelView> models;
};
BOOST_DESCRIBE_STRUCT(StatusView, (),
                      (version, cluster_id, epoch, rev, ready, not_ready_because, queue, cache_used, cache_limit,
                       disk_free, workers, devices, models))

struct DevicesView {
  Rev rev;
  std::vector<DeviceView> devices;
};
BOOST_DESCRIBE_STRUCT(DevicesView, (), (rev, devices))

/// What workers shall know and what they have confirmed, at `rev`.
struct PropagationView {
  Rev rev;
  std::vector<Delivery> deliveries;
};
BOOST_DESCRIBE_STRUCT(PropagationView, (), (rev, deliveries))

struct ModelsView {
  Rev rev;
  std::vector<ModelView> models;
};
BOOST_DESCRIBE_STRUCT(ModelsView, (), (rev, models))

struct JobView {
  JobId job_id;
  std::uint32_t index = 0;
  std::string stage;
  std::string doing;      // "loading tiny-sdxl", "inference"; empty when it waits or has ended
  double percent = 0;     // of `doing`
  std::string waits_for;  // why nothing is done; empty when something is, or it has ended
  std::uint32_t attempt = 0;
  std::uint32_t deaths = 0;
  std::uint64_t seed = 0;
  WorkerId worker_id;
  WorkerId inference_worker;
  WorkerId postprocessing_worker;
  std::optional<ResultMetadata> inference;
  std::optional<std::vector<std::string>> operations;
  std::optional<FinalResults> results;
  std::optional<ImageBuffer> output;
  std::optional<processing::Failure> failure;
};
BOOST_DESCRIBE_STRUCT(JobView, (),
                      (job_id, index, stage, doing, percent, waits_for, attempt, deaths, seed, worker_id,
                       inference_worker, postprocessing_worker, inference, operations, results, output, failure))

struct RequestView {
  RequestId request_id;
  std::string kind;
  std::string state;
  std::string created;   // RFC 3339
  std::string finished;  // empty while it runs
  InferenceParameters parameters;
  ModelId model;
  std::vector<PipelineOperation> pipeline;
  std::vector<JobView> jobs;
  std::optional<processing::Failure> failure;
};
BOOST_DESCRIBE_STRUCT(RequestView, (),
                      (request_id, kind, state, created, finished, parameters, model, pipeline, jobs, failure))

struct RequestSummary {
  RequestId request_id;
  std::string kind;
  std::string state;
  std::string created;
  std::uint32_t n = 0;
  std::string prompt;
  std::optional<processing::Failure> failure;
};
BOOST_DESCRIBE_STRUCT(RequestSummary, (), (request_id, kind, state, created, n, prompt, failure))

struct RequestsView {
  Rev rev;
  std::vector<RequestSummary> requests;  // newest first, at most 200
};
BOOST_DESCRIBE_STRUCT(RequestsView, (), (rev, requests))

/// The parts that tables alone can tell; the orchestrator adds what is volatile (tasks, progress, telemetry, cache).
DeviceView view_of(const Tables& tables, const device::Device& device);
WorkerView view_of(const WorkerRecord& worker);
ModelView view_of(const Tables& tables, const model::Model& model);
RequestView view_of(const Tables& tables, const processing::Request& request);
RequestsView requests_view(const Tables& tables, Rev rev);

}  // namespace lockstep
