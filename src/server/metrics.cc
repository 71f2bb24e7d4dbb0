#include "server/metrics.h"

#include <array>
#include <locale>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "base/text.h"
#include "domains/memory/rules.h"
#include "events/json_write.h"
#include "orchestrator/on_memory.h"

namespace lockstep::server {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

double as_seconds(Nanos nanos) { return static_cast<double>(nanos) / 1e9; }

template <class Number>
double real(Number number) {
  return static_cast<double>(number);
}

/// Families in the order they were begun; samples go to the newest.
class Families {
 public:
  void counter(std::string name, std::string help) { begin(std::move(name), std::move(help), MetricType::Counter); }
  void gauge(std::string name, std::string help) { begin(std::move(name), std::move(help), MetricType::Gauge); }
  void histogram(std::string name, std::string help) { begin(std::move(name), std::move(help), MetricType::Histogram); }

  void add(double value, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (all_.back().type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    all_.back().metric.push_back(std::move(metric));
  }
  void add(const Histogram& source, Labels labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.histogram.sample_count = source.count();
    metric.histogram.sample_sum = as_seconds(source.sum());
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < source.bounds().size(); ++i) {
      below += source.counts()[i];
      metric.histogram.bucket.push_back({below, as_seconds(source.bounds()[i])});
    }
    all_.back().metric.push_back(std::move(metric));
  }
  std::string text() const {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    prometheus::TextSerializer().Serialize(out, all_);
    return out.str();
  }

 private:
  void begin(std::string name, std::string help, MetricType type) {
    all_.push_back({std::move(name), std::move(help), type, {}});
  }
  std::vector<MetricFamily> all_;
};

/// A named count for each key; a family with keys that did not occur yet starts without samples.
template <class Map>
void add_each(Families& out, const Map& counts, const char* label) {
  for (const auto& [key, count] : counts) out.add(real(count), {{label, key}});
}

void server_families(Families& out, const MetricsSource& from) {
  const Live& live = from.machine.live();
  const Tables& tables = from.machine.tables();
  out.gauge("lockstep_build_info", "Always 1; the version is its label.");
  out.add(1, {{"version", from.settings.version}});
  out.gauge("lockstep_epoch", "Number of this start of the orchestrator in its data directory.");
  out.add(real(live.epoch.value));
  out.gauge("lockstep_rev", "Newest revision of the durable state.");
  out.add(real(live.rev.value));
  out.gauge("lockstep_ready", "1 when a worker is ready and the models are known, else 0.");
  bool ready = false;
  for (const auto& [key, entry] : tables.liveness.workers.entries()) {
    ready = ready || entry.row.state == WorkerState::ready;
  }
  out.add(ready && live.scanned && !live.stopping ? 1 : 0);

  out.counter("lockstep_journal_commits_total", "Commits made durable since the start.");
  out.add(real(from.driver.commits));
  out.histogram("lockstep_journal_sync_seconds", "Time of one synced append, of one commit or of several.");
  out.add(from.driver.sync);
  out.counter("lockstep_journal_snapshots_total", "Snapshots written since the start.");
  out.add(real(from.driver.snapshots));
  out.gauge("lockstep_journal_bytes", "Size of the journal's files.");
  out.add(real(from.journal_bytes));
  if (const auto& disk = from.machine.live().data_disk) {
    out.gauge("lockstep_disk_free_bytes", "What may still be written to the disk of the data directory.");
    out.add(real(disk->free.value));
  }
}

void work_families(Families& out, const MetricsSource& from) {
  using processing::JobStage;
  const Live& live = from.machine.live();
  const Counters& counters = live.counters;
  out.counter("lockstep_requests_accepted_total", "Requests accepted since the start, by kind.");
  add_each(out, counters.requests_accepted, "kind");
  out.counter("lockstep_requests_refused_total", "Requests refused by the core since the start, by error code.");
  add_each(out, counters.requests_refused, "code");
  out.counter("lockstep_requests_ended_total", "Requests that ended since the start, by outcome.");
  add_each(out, counters.requests_ended, "outcome");
  constexpr std::array stages{JobStage::queued,  JobStage::inferring, JobStage::generated, JobStage::postprocessing,
                              JobStage::storing, JobStage::completed, JobStage::failed,    JobStage::set_aside};
  out.gauge("lockstep_jobs", "Images that are known, by stage.");
  for (const JobStage stage : stages) {
    const auto place = counters.jobs.find(stage);
    out.add(place == counters.jobs.end() ? 0 : real(place->second), {{"stage", json::enum_name(stage)}});
  }
  out.gauge("lockstep_queue_length", "Images that are accepted and have not ended.");
  out.add(real(live.open_jobs.size()));
  out.gauge("lockstep_queue_limit", "Images from which on new requests are refused.");
  out.add(real(from.settings.accept.open_jobs_max));
  out.counter("lockstep_jobs_ended_total", "Images that ended since the start, by stage they ended in.");
  for (const JobStage stage : stages) {
    if (!processing::is_terminal(stage)) continue;
    const auto place = counters.jobs_ended.find(stage);
    out.add(place == counters.jobs_ended.end() ? 0 : real(place->second), {{"stage", json::enum_name(stage)}});
  }
  std::map<std::string, double> sessions;
  using processing::SessionState;
  for (const SessionState state :
       {SessionState::created, SessionState::active, SessionState::paused, SessionState::completing}) {
    sessions[json::enum_name(state)] = 0;
  }
  for (const std::string& id : live.open_sessions) {
    ++sessions[json::enum_name(from.machine.tables().processing.sessions.at(id).state)];
  }
  out.gauge("lockstep_sessions", "Sessions that have not ended, by state.");
  for (const auto& [state, number] : sessions) out.add(number, {{"state", state}});
  out.histogram("lockstep_job_stage_seconds",
                "Time of an image in a stage that it left for the next; queued is the wait before inference.");
  for (const auto& [stage, histogram] : counters.stage_seconds) out.add(histogram, {{"stage", json::enum_name(stage)}});
  out.histogram("lockstep_job_seconds", "Time of an image from accepted to stored.");
  out.add(counters.job_seconds);
}

void worker_families(Families& out, const MetricsSource& from) {
  const Live& live = from.machine.live();
  const auto& workers = from.machine.tables().liveness.workers.entries();
  constexpr std::array states{WorkerState::spawning, WorkerState::online, WorkerState::ready, WorkerState::ending,
                              WorkerState::gone};
  const auto for_each = [&](auto&& value_of) {
    for (const auto& [key, entry] : workers) {
      const auto place = live.workers.find(entry.row.worker_id);
      value_of(key, entry.row, place == live.workers.end() ? WorkerLive{} : place->second);
    }
  };
  out.gauge("lockstep_worker_state", "1 for the state a worker is in, 0 for the others.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    for (const WorkerState state : states) {
      out.add(worker.state == state ? 1 : 0, {{"worker", key}, {"state", json::enum_name(state)}});
    }
  });
  out.gauge("lockstep_worker_set_aside", "1 when a worker is not started any more because it died too often.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    const auto place = live.starts.find(worker.worker_id);
    out.add(place != live.starts.end() && place->second.breaker.open() ? 1 : 0, {{"worker", key}});
  });
  out.gauge("lockstep_worker_incarnation", "Number of the worker's newest process.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    out.add(real(worker.incarnation.value), {{"worker", key}});
  });
  out.gauge("lockstep_worker_link_open", "1 when frames can go to the worker.");
  for_each([&](const std::string& key, const WorkerRecord&, const WorkerLive& now) {
    out.add(now.link_open ? 1 : 0, {{"worker", key}});
  });
  out.gauge("lockstep_worker_silence_seconds", "Time since the worker's newest frame; only for open links.");
  for_each([&](const std::string& key, const WorkerRecord&, const WorkerLive& now) {
    if (now.link_open) out.add(as_seconds(from.now - now.heard), {{"worker", key}});
  });
  out.gauge("lockstep_worker_busy", "1 while the worker has a task.");
  for_each([&](const std::string& key, const WorkerRecord&, const WorkerLive& now) {
    out.add(now.task.empty() ? 0 : 1, {{"worker", key}});
  });
  const auto count = [](const auto& counts, const auto& id) {
    const auto place = counts.find(id);
    return place == counts.end() ? 0.0 : real(place->second);
  };
  out.counter("lockstep_worker_starts_total", "Processes ordered for the worker since the start.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    out.add(count(live.counters.worker_starts, worker.worker_id), {{"worker", key}});
  });
  out.counter(
      "lockstep_worker_deaths_total",
      "Ended processes since the start, by cause: signal, exit, ended (for misbehaving), not_started, requested "
      "(by a person or a stop), other.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    for (const char* cause : {"signal", "exit", "ended", "not_started", "requested", "other"}) {
      out.add(count(live.counters.worker_deaths, std::pair(worker.worker_id, std::string(cause))),
              {{"worker", key}, {"cause", cause}});
    }
  });
  out.counter("lockstep_workers_set_aside_total", "Times a worker was set aside since the start.");
  out.add(real(live.counters.set_aside));
  out.counter("lockstep_worker_frames_refused_total", "Frames of the worker that were refused since the start.");
  for_each([&](const std::string& key, const WorkerRecord& worker, const WorkerLive&) {
    out.add(count(live.counters.frames_refused, worker.worker_id), {{"worker", key}});
  });
  out.counter("lockstep_worker_writes_refused_total",
              "Events of the worker that told of a fact that is not its own, since the start, by fact.");
  for (const auto& [key, times] : live.counters.writes_refused) {
    out.add(real(times), {{"worker", key.first.str()}, {"fact", key.second}});
  }
  out.counter("lockstep_worker_events_not_yet_total",
              "Events of the worker that have no effect in this version, since the start, by type.");
  for (const auto& [key, times] : live.counters.events_not_yet) {
    out.add(real(times), {{"worker", key.first.str()}, {"event", key.second}});
  }
}

void model_families(Families& out, const Live& live) {
  const auto for_each = [&](auto value) {
    for (const auto& [key, cost] : live.operation_costs) {
      const auto& [model, operation, size] = key;
      out.add(value(cost), {{"model", model.str()}, {"operation", operation}, {"size", size}});
    }
  };
  out.counter("lockstep_operation_runs_total", "Operations that completed since the start, by model and size.");
  for_each([](const OperationCost& cost) { return real(cost.runs); });
  out.counter("lockstep_operation_seconds_total", "Time they took on workers.");
  for_each([](const OperationCost& cost) { return cost.seconds; });
  out.gauge("lockstep_operation_peak_bytes", "The highest peak of memory of one, as workers measure it.");
  for_each([](const OperationCost& cost) { return real(cost.peak_max.value); });
}

void lane_families(Families& out, const LanesCounters& lanes, const std::array<Count, 4>& redelivered) {
  const auto for_each = [&](auto value) {
    for (std::size_t i = 0; i < lanes.size(); ++i) out.add(value(lanes[i]), {{"lane", cat("P", i)}});
  };
  out.gauge("lockstep_lane_queued", "Frames that wait for a worker link, by lane.");
  for_each([](const LaneCounters& lane) { return real(lane.queued); });
  out.counter("lockstep_lane_sent_total", "Frames that left the lane since the start.");
  for_each([](const LaneCounters& lane) { return real(lane.sent); });
  out.counter("lockstep_lane_conflated_total", "Samples that a newer one replaced while they waited.");
  for_each([](const LaneCounters& lane) { return real(lane.conflated); });
  out.counter("lockstep_lane_lifted_total", "Frames that left in this lane because a more urgent one waited for them.");
  for_each([](const LaneCounters& lane) { return real(lane.lifted); });
  out.counter("lockstep_lane_redelivered_total", "Changes that were sent again because no confirmation came.");
  for (std::size_t i = 0; i < redelivered.size(); ++i) out.add(real(redelivered[i]), {{"lane", cat("P", i)}});
  out.histogram("lockstep_lane_wait_seconds", "Time a frame waited in its lane.");
  for_each([](const LaneCounters& lane) { return lane.latency; });
}

void memory_families(Families& out, const MetricsSource& from) {
  const Live& live = from.machine.live();
  const Tables& tables = from.machine.tables();
  const Counters& counters = live.counters;
  out.gauge("lockstep_device_memory_budget_bytes", "What models on the device may hold together.");
  for (const auto& [key, entry] : tables.device.devices.entries()) {
    out.add(real(entry.row.memory_budget.value), {{"device", key}});
  }
  out.gauge("lockstep_device_memory_granted_bytes", "What is granted on the device.");
  for (const auto& [key, entry] : tables.device.devices.entries()) {
    out.add(real(memory::allocated_on(tables.memory, entry.row.device_id).value), {{"device", key}});
  }
  std::array<std::pair<Bytes, std::size_t>, 3> segments{};
  for (const auto& [key, segment] : live.segments) {
    auto& [bytes, number] = segments.at(static_cast<std::size_t>(segment.state));
    bytes += segment.size;
    ++number;
  }
  constexpr std::array states{SegmentState::filling, SegmentState::ready, SegmentState::failed};
  out.gauge("lockstep_cache_limit_bytes", "RAM for segments.");
  out.add(real(memory::cache_limit(tables.memory.policy(), from.settings.cache_limit, ram_of(live.ram)).bytes.value));
  out.gauge("lockstep_cache_bytes", "Bytes of segments, by state.");
  for (const SegmentState state : states) {
    out.add(real(segments.at(static_cast<std::size_t>(state)).first.value), {{"state", json::enum_name(state)}});
  }
  out.gauge("lockstep_cache_segments", "Segments, by state.");
  for (const SegmentState state : states) {
    out.add(real(segments.at(static_cast<std::size_t>(state)).second), {{"state", json::enum_name(state)}});
  }
  out.counter("lockstep_cache_hits_total", "Components that a load found in the cache since the start.");
  out.add(real(counters.cache_hits));
  out.counter("lockstep_cache_misses_total", "Components that had to be read from disk since the start.");
  out.add(real(counters.cache_misses));
  out.counter("lockstep_cache_evictions_total", "Segments dropped to make room since the start.");
  out.add(real(counters.cache_evictions));
  out.histogram("lockstep_model_load_seconds", "Time of a load from its decision until the worker has the model.");
  out.add(counters.load_seconds);
  out.counter("lockstep_model_loads_failed_total", "Loads that were decided and undone since the start.");
  out.add(real(counters.loads_failed));
  out.counter("lockstep_model_releases_total", "Models that left a worker's memory since the start, by any way.");
  out.add(real(counters.releases));
  out.counter("lockstep_transactions_total", "Two-phase commits since the start, by outcome.");
  const std::uint64_t open = live.intents.size();
  out.add(real(counters.transactions_committed), {{"outcome", "committed"}});
  out.add(real(live.transactions_made - counters.transactions_committed - open), {{"outcome", "aborted"}});
  out.gauge("lockstep_transactions_preparing", "Two-phase commits that wait for votes.");
  out.add(real(open));
  out.gauge("lockstep_transactions_undone", "Decisions that a worker has not confirmed yet.");
  out.add(real(tables.transactions.decisions.size()));
  out.gauge("lockstep_sagas", "Sagas of which something is left to undo, by state; a parked one waits for a person.");
  for (const SagaStatus state : {SagaStatus::compensating, SagaStatus::parked}) {
    const auto is = [&](const auto& each) { return each.second.row.state == state; };
    out.add(real(std::ranges::count_if(tables.transactions.sagas.entries(), is)), {{"state", json::enum_name(state)}});
  }
}

void governed_families(Families& out, const MetricsSource& from) {
  const Live& live = from.machine.live();
  const Tables& tables = from.machine.tables();
  const Counters& counters = live.counters;
  out.gauge("lockstep_device_health", "Health level of a device: 0 ok, 1 degraded, 2 critical.");
  for (const auto& [key, entry] : tables.device.devices.entries()) {
    out.add(static_cast<double>(tables.device.level_of(entry.row.device_id)), {{"device", key}});
  }
  out.gauge("lockstep_memory_pressure", "Pressure in a pool: 0 low, 1 moderate, 2 high, 3 critical.");
  out.add(static_cast<double>(tables.memory.level_of(memory::system_ram)), {{"pool", std::string(memory::system_ram)}});
  for (const auto& [key, entry] : tables.device.devices.entries()) {
    out.add(static_cast<double>(tables.memory.level_of(key)), {{"pool", key}});
  }
  out.gauge("lockstep_memory_emergency_steps", "Steps against pressure in RAM that are on.");
  out.add(real(live.ram.steps.size()));
  out.gauge("lockstep_memory_grants", "Reservations that workers were granted at their request.");
  out.add(real(tables.memory.grants.size()));
  out.counter("lockstep_memory_requests_answered_total", "Answers to requests of workers for memory, by outcome.");
  add_each(out, counters.requests_answered, "outcome");
  out.counter("lockstep_memory_leaks_suspected_total", "Times an idle worker held more than its ledger.");
  out.add(real(counters.leaks_suspected));
  out.counter("lockstep_cache_collected_total", "Segments dropped for idleness, pressure or a smaller limit.");
  out.add(real(counters.cache_collected));
  out.counter("lockstep_commands_total", "Commands to workers, by whether they had to wait for room on their link.");
  out.add(real(counters.commands_sent), {{"what", "sent"}});
  out.add(real(counters.commands_throttled), {{"what", "throttled"}});
}

void http_families(Families& out, const MetricsSource& from) {
  out.counter("lockstep_http_answers_total", "Answers since the start, by class of route and status.");
  for (const auto& [key, count] : from.http.answers) {
    out.add(real(count), {{"route", key.first}, {"status", cat(key.second)}});
  }
  out.gauge("lockstep_http_connections", "Open connections.");
  out.add(real(from.http.connections_open));
  out.gauge("lockstep_event_streams", "Open event streams.");
  out.add(real(from.http.streams_open));
  out.counter("lockstep_event_streams_opened_total", "Event streams opened since the start.");
  out.add(real(from.http.streams_opened));
  out.counter("lockstep_event_streams_resumed_total", "Event streams that went on from a place, since the start.");
  out.add(real(from.http.streams_resumed));
  out.counter("lockstep_event_stream_overflows_total", "Event streams ended because their reader was too slow.");
  out.add(real(from.http.stream_overflows));
  out.gauge("lockstep_event_history_events", "Events that a stream can go back to.");
  out.add(real(from.http.history_events));
  out.gauge("lockstep_event_history_bytes", "The same in bytes.");
  out.add(real(from.http.history_bytes));
}

void process_families(Families& out, const ProcessFacts& process) {
  out.counter("process_cpu_seconds_total", "CPU time of the orchestrator.");
  out.add(process.cpu_seconds);
  out.gauge("process_resident_memory_bytes", "Resident memory of the orchestrator.");
  out.add(real(process.resident_bytes));
  out.gauge("process_virtual_memory_bytes", "Address space of the orchestrator.");
  out.add(real(process.virtual_bytes));
  out.gauge("process_open_fds", "Open descriptors of the orchestrator.");
  out.add(real(process.open_descriptors));
  out.gauge("process_max_fds", "The limit of them.");
  out.add(real(process.descriptors_max));
  out.gauge("process_threads", "Threads of the orchestrator.");
  out.add(real(process.threads));
  out.gauge("process_start_time_seconds", "Start of the orchestrator, in seconds since 1970.");
  out.add(process.start_seconds);
}

}  // namespace

std::string metrics_text(const MetricsSource& source) {
  Families out;
  server_families(out, source);
  work_families(out, source);
  worker_families(out, source);
  model_families(out, source.machine.live());
  lane_families(out, source.driver.lanes, source.machine.live().counters.redelivered);
  memory_families(out, source);
  governed_families(out, source);
  http_families(out, source);
  process_families(out, source.process);
  return out.text();
}

}  // namespace lockstep::server
