#include "orchestrator/owner_gate.h"

#include <bit>

namespace lockstep {

namespace {

/// What people see of a refused write.
struct WriteRefused {
  WorkerId worker_id;
  std::string event;
  std::string fact;
  std::string code;  // of base/error_table.h
  std::string reason;
  Count times = 0;  // so far, of this worker and fact
};
BOOST_DESCRIBE_STRUCT(WriteRefused, (), (worker_id, event, fact, code, reason, times))

/// The job in "inf:<job>:<attempt>" and "post:<job>:<attempt>"; empty when it is no run's name.
std::string job_in(std::string_view run) {
  const std::size_t first = run.find(':');
  const std::size_t last = run.rfind(':');
  if (first == std::string_view::npos || first == last) return "";
  return std::string(run.substr(first + 1, last - first - 1));
}

template <class Runs>
bool run_of_another(const Runs& runs, std::string_view run, const WorkerId& worker) {
  const auto* row = runs.find(job_in(run));
  return row != nullptr && row->run_id == run && row->worker_id != worker;
}

bool transaction_of_another(const Turn& turn, std::string_view name, const WorkerId& worker) {
  const TransactionId id{std::string(name)};
  const auto intent = turn.live.intents.find(id);
  if (intent != turn.live.intents.end()) return intent->second.worker_id != worker;
  const Decision* decision = turn.tables.transactions.decisions.find(id.str());
  return decision != nullptr && decision->participant != worker;
}

/// The model of a load that this worker's operation is about, or the worker whose load it is.
const model::Residency* load_named(const Turn& turn, std::string_view op_id) {
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    if (op_id == cat("load:", entry.row.transaction_id.str())) return &entry.row;
  }
  return nullptr;
}

}  // namespace

namespace detail {

Status thing_is_its_own(const Turn& turn, const WorkerRecord& worker, const Envelope& envelope, std::string_view key,
                        std::string_view name) {
  const auto not_its_own = [&] {
    return fail(ErrorCode::not_owner, cat(key, " ", shortened(name), " is not of ", worker.worker_id.str()),
                cat("/", key));
  };
  if (key == "device_id" && name != worker.device_id.str()) return not_its_own();
  if (key == "transaction_id" && transaction_of_another(turn, name, worker.worker_id)) return not_its_own();
  if (key == "request_id" && (run_of_another(turn.tables.inference.runs, name, worker.worker_id) ||
                              run_of_another(turn.tables.postprocessing.runs, name, worker.worker_id))) {
    return not_its_own();
  }
  if (key == "model_id") {
    const model::Residency* load = load_named(turn, envelope.op_id);
    if (load != nullptr && (load->worker_id != worker.worker_id || load->model_id.str() != name)) return not_its_own();
  }
  return {};
}

}  // namespace detail

Status owner_gate(FrameType type) { return ownership::may_send(Side::worker, type); }

void refuse_write(Turn& turn, const WorkerRecord& worker, FrameType type, const Error& why) {
  const ownership::EventRow* row = ownership::row_of(type);
  const std::string fact = row == nullptr ? "" : json::enum_name(*row->writes[0]);
  const std::string event = json::enum_name(type);
  const bool early = why.code == ErrorCode::not_yet;
  Counters& counters = turn.live.counters;
  const Count times = early ? ++counters.events_not_yet[{worker.worker_id, event}]
                            : ++counters.writes_refused[{worker.worker_id, fact}];
  // A worker that repeats it must not fill the log and the streams; the counter is exact.
  if (!std::has_single_bit(times)) return;
  turn.warn(cat(worker.worker_id.str(), " sent ", event, ", refused: ", why.message, " (", times, " so far)"));
  const WriteRefused seen{worker.worker_id, event, fact, std::string(error_facts(why.code).name), why.message, times};
  turn.publish("write_refused", worker.worker_id.str(), seen);
}

}  // namespace lockstep
