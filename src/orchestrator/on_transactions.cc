#include "orchestrator/on_transactions.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/text.h"
#include "domains/model/rules.h"
#include "domains/processing/rules.h"
#include "operations/model_load.h"
#include "operations/sagas.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_saga.h"
#include "orchestrator/on_session.h"
#include "orchestrator/transaction_documents.h"

namespace lockstep {

namespace {

LoggedTransaction* find(Turn& turn, const TransactionId& id) {
  const auto place = turn.live.transactions.entries.find(id);
  return place == turn.live.transactions.entries.end() ? nullptr : &place->second;
}

template <class Document>
void write(Turn& turn, LoggedTransaction& entry, const Document& document) {
  const std::string name(Document::document_name);
  const RawJson body{json::to_text(document)};
  entry.changed = turn.wall;
  entry.documents.push_back({turn.wall, name, body});
  turn.publish(name, entry.transaction_id.str(), body, processing::session_of(turn.tables.processing, entry.job_id));
}

LoggedTransaction& open(Turn& turn, LoggedTransaction entry) {
  TransactionLog& log = turn.live.transactions;
  entry.began = turn.wall;
  entry.changed = turn.wall;
  log.open.insert(entry.transaction_id);
  const TransactionId id = entry.transaction_id;
  return log.entries.insert_or_assign(id, std::move(entry)).first->second;
}

void end(Turn& turn, const LoggedTransaction& entry) {
  TransactionLog& log = turn.live.transactions;
  log.open.erase(entry.transaction_id);
  log.ended.push_back(entry.transaction_id);
  while (log.ended.size() > TransactionLog::ended_max) {
    log.entries.erase(log.ended.front());
    log.ended.pop_front();
  }
}

// ---- sagas of which something is left to undo ---------------------------------------------------------------------

const SagaRecord* saga_of(const Turn& turn, const LoggedTransaction& entry) {
  return turn.tables.transactions.sagas.find(saga_id_of(entry.transaction_id));
}

void write_saga(Turn& turn, LoggedTransaction& entry) {
  const bool of_load = entry.kind == TransactionKind::model_load && entry.saga.empty();
  write(turn, entry, of_load ? load_saga(entry) : rollback_saga(entry));
}

/// What is parked gives the reason why it cannot be undone; otherwise why it is.
void take_over(LoggedTransaction& entry, const SagaRecord& record) {
  const bool stuck = record.state == SagaStatus::parked;
  entry.state = stuck ? LoggedState::parked : LoggedState::compensating;
  entry.reason = shortened(stuck ? record.reason : record.failure, 500);
}

bool follow_saga(Turn& turn, LoggedTransaction& entry) {
  const SagaRecord* record = saga_of(turn, entry);
  if (record != nullptr) {
    if ((record->state == SagaStatus::parked) == (entry.state == LoggedState::parked)) return false;
    take_over(entry, *record);
    write_saga(turn, entry);
    return true;
  }
  entry.state = LoggedState::compensated;
  write_saga(turn, entry);
  end(turn, entry);
  return true;
}

/// A record that the log does not know: a rollback that has begun, or a saga of an earlier life.
bool take_up_saga(Turn& turn) {
  for (const auto& [id, each] : turn.tables.transactions.sagas.entries()) {
    const SagaRecord& record = each.row;
    if (turn.live.transactions.open.contains(record.transaction_id)) continue;
    LoggedTransaction entry;
    entry.transaction_id = record.transaction_id;
    entry.kind = record.load ? TransactionKind::model_load : TransactionKind::rollback;
    if (!record.load || saga_definition(record.definition) == nullptr) entry.saga = record.definition;
    if (record.load) {
      entry.worker_id = record.load->worker_id;
      entry.incarnation = record.load->incarnation;
      entry.device_id = record.load->device_id;
      entry.model_id = record.load->model_id;
      entry.bytes = record.load->bytes;
      entry.job_id = record.load->wanted_by;
      entry.decided = record.since;
      entry.unproven = true;
      entry.failure_point = "copy_failed";  // only of such a load something is left to undo
    }
    if (record.request_id) entry.job_id = JobId(record.request_id->str());
    LoggedTransaction& kept = open(turn, std::move(entry));
    kept.began = record.since;
    take_over(kept, record);
    write_saga(turn, kept);
    return true;
  }
  return false;
}

// ---- loads --------------------------------------------------------------------------------------------------------

LoggedTransaction entry_of(const LoadIntent& intent) {
  LoggedTransaction out;
  out.transaction_id = intent.transaction_id;
  out.model_id = intent.plan.model_id;
  out.worker_id = intent.worker_id;
  out.incarnation = intent.incarnation;
  out.device_id = intent.device_id;
  out.bytes = intent.plan.bytes;
  out.job_id = intent.wanted_by;
  out.votes = intent.votes;
  return out;
}

/// What the driver counts for the worker's process beyond what its allocator has: the context, code, what leaks past
/// the allocator. Absent where one of the two does not tell.
std::optional<Bytes> beyond_allocator(const Turn& turn, const WorkerId& worker) {
  const auto live = turn.live.workers.find(worker);
  if (live == turn.live.workers.end() || !live->second.health) return std::nullopt;
  const std::optional<DeviceDiagnostics>& told = live->second.health->diagnostics;
  if (!told || !told->process_memory || !told->allocator) return std::nullopt;
  return Bytes{told->process_memory->value - std::min(told->process_memory->value, told->allocator->reserved.value)};
}

/// Whether the driver agrees that a load is gone; nothing when it does not tell, as that of a processor never does:
/// what its worker has mapped is the kernel's word, and it was sampled as the allocator's. Of a small load a growth
/// that is more than the load leaves room for, and less than a context may grow by with its use, says neither yes nor
/// no.
std::optional<bool> driver_agrees(const Turn& turn, const LoggedTransaction& load) {
  const auto now = beyond_allocator(turn, load.worker_id);
  if (!now || !load.beyond_allocator) return std::nullopt;
  if (*now <= *load.beyond_allocator + leak_tolerance_of(load.bytes)) return true;
  if (*now > *load.beyond_allocator + leak_tolerance) return false;
  return std::nullopt;
}

void began(Turn& turn, const LoadIntent& intent) {
  turn.live.transactions.refused.erase({intent.worker_id, intent.plan.model_id});
  LoggedTransaction& load = open(turn, entry_of(intent));
  load.beyond_allocator = beyond_allocator(turn, intent.worker_id);
  const auto samples = turn.live.samples.find(intent.device_id);
  if (samples != turn.live.samples.end()) load.before = samples->second.quiet;
  write(turn, load, device_memory_document(turn, load));
  write(turn, load, model_memory_document(turn, load));
}

void decided(Turn& turn, LoggedTransaction& load) {
  load.state = LoggedState::committing;
  load.decided = turn.wall;
  write(turn, load, voting(load));
  write(turn, load, outcome(turn, load));
  write(turn, load, device_memory_consistency(turn, load));
  write(turn, load, load_saga(load));
}

void await_proof(LoggedTransaction& load) {
  load.unproven = true;
  load.samples = 0;
}

/// The words of §3.8 for what ended a load before it was decided.
std::string_view failure_point_of(TransactionEvent event) {
  switch (event) {
    case TransactionEvent::vote_abort: return "vram_allocation_failed";
    case TransactionEvent::prepare_timeout: return "prepare_timeout";
    case TransactionEvent::participant_lost: return "worker_lost";
    case TransactionEvent::overruled:
    case TransactionEvent::vote_commit:
    case TransactionEvent::acknowledged: break;
  }
  LOCKSTEP_CHECK(event == TransactionEvent::overruled);  // the others end nothing
  return "overruled";
}

void aborted(Turn& turn, LoggedTransaction& load) {
  load.state = LoggedState::aborted;
  if (load.reason.empty()) load.reason = "its participant or the link to it was lost before it had voted";
  await_proof(load);
  write(turn, load, voting(load));
  write(turn, load, outcome(turn, load));
  write(turn, load, partial_allocation(load, {ledger_is_free_of(turn, load), {}, {}, {}}));
  write(turn, load, device_memory_consistency(turn, load));
  end(turn, load);
}

void loaded(Turn& turn, LoggedTransaction& load) {
  load.state = LoggedState::committed;
  write(turn, load, loading_state(turn, load, 1));
  write(turn, load, outcome(turn, load));
  write(turn, load, device_memory_consistency(turn, load));
  write(turn, load, load_saga(load));
  end(turn, load);
}

void undone(Turn& turn, LoggedTransaction& load) {
  if (load.reason.empty()) load.reason = "its worker is gone";
  const bool told = std::ranges::any_of(
      load.documents, [](const auto& each) { return each.name == ModelLoadingFailure::document_name; });
  if (!told) write(turn, load, loading_failure(load));
  // While its worker lives, its allocator has to show that the bytes are free.
  const bool proven = saga_of(turn, load) == nullptr;
  load.state = proven ? LoggedState::compensated : LoggedState::compensating;
  await_proof(load);
  write(turn, load, partial_allocation(load, {ledger_is_free_of(turn, load), {}, {}, {}}));
  write(turn, load, outcome(turn, load));
  write(turn, load, device_memory_consistency(turn, load));
  if (!proven) return;
  write(turn, load, load_saga(load));
  end(turn, load);
}

bool follow_load(Turn& turn, LoggedTransaction& load) {
  const model::Residency* held = residency_of(turn, load);
  if (load.state == LoggedState::preparing) {
    if (turn.live.intents.contains(load.transaction_id)) return false;
    if (held != nullptr) {
      decided(turn, load);
    } else {
      aborted(turn, load);
    }
    return true;
  }
  if (held == nullptr) {
    undone(turn, load);
    return true;
  }
  if (held->state == model::ResidencyState::loading) return false;
  loaded(turn, load);
  return true;
}

// ---- images -------------------------------------------------------------------------------------------------------

void finish_image_log(Turn& turn, LoggedTransaction& image, LoggedState state, std::string reason) {
  if (image.reason.empty()) image.reason = std::move(reason);
  if (state == LoggedState::compensated) {
    write(turn, image, image_saga(image, true));
    // Of what was handed over, the inference is complete, whatever became of the image.
    if (image.step == ImageStep::inferring) write(turn, image, session_sync(turn, image, "failed"));
  }
  image.state = state;
  write(turn, image, pipeline_flow(turn, image));
  write(turn, image, image_saga(image));
  end(turn, image);
}

bool follow_image(Turn& turn, LoggedTransaction& image) {
  const processing::Job* job = turn.tables.processing.jobs.find(image.job_id.str());
  if (job == nullptr) {
    finish_image_log(turn, image, LoggedState::compensated, "its request is gone");
    return true;
  }
  using processing::JobStage;
  const auto step_to = [&](ImageStep step) {
    if (image.step >= step) return false;
    const bool handed_over = image.step == ImageStep::inferring;
    image.step = step;
    image.changed = turn.wall;
    if (handed_over) write(turn, image, session_sync(turn, image, "completed"));
    if (step == ImageStep::storing) {
      write(turn, image, pipeline_flow(turn, image));
    }
    return handed_over || step == ImageStep::storing;
  };
  switch (job->stage) {
    case JobStage::inferring:
      if (job->attempt == image.attempt) return false;
      finish_image_log(turn, image, LoggedState::compensated, "another attempt has taken its place");
      return true;
    case JobStage::queued:
      finish_image_log(turn, image, LoggedState::compensated, "its worker or its pixels were lost; it is tried again");
      return true;
    case JobStage::generated: return step_to(ImageStep::handed_over);
    case JobStage::postprocessing: return step_to(ImageStep::postprocessing);
    case JobStage::storing: return step_to(ImageStep::storing);
    case JobStage::completed:
      if (step_to(ImageStep::storing)) return true;
      finish_image_log(turn, image, LoggedState::committed, "");
      return true;
    case JobStage::failed:
    case JobStage::set_aside:
      finish_image_log(turn, image, LoggedState::compensated, job->failure ? job->failure->message : "it failed");
      return true;
  }
  return false;
}

// ---- views --------------------------------------------------------------------------------------------------------

/// Of a transaction that waits for a participant: commit, abort; of a saga that is parked: retry, accept.
enum class ByHand { commit, abort, retry, accept };
BOOST_DESCRIBE_ENUM(ByHand, commit, abort, retry, accept)

struct ResolveBody {
  ByHand decision = ByHand::abort;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(ResolveBody, (), (decision, reason))

TransactionView view_of(const Turn& turn, const LoggedTransaction& entry) {
  const SagaRecord* record = saga_of(turn, entry);
  return {entry.transaction_id,
          json::enum_name(entry.kind),
          json::enum_name(entry.state),
          entry.worker_id,
          entry.incarnation,
          entry.device_id,
          entry.model_id,
          entry.job_id,
          entry.reason,
          to_rfc3339(entry.began),
          to_rfc3339(entry.changed),
          {},
          {},
          record == nullptr ? std::nullopt : std::optional(*record)};
}

/// The row of what a person decided: journaled, told, and said to whoever asked.
void keep_override(Turn& turn, const TransactionOverride& row, ReplyId reply) {
  turn.change.put(turn.tables.transactions.overrides, row.transaction_id.str(), row);
  turn.change.event("transaction_resolved_by_hand", row.transaction_id.str(), row);
  turn.warn(cat("a person decided ", row.decision, " of ", row.transaction_id.str(), ": ", row.reason));
  turn.effect(out::Reply{reply, 200, json::to_text(row)});
}

void resolve_parked(Turn& turn, const in::ResolveTransaction& input, const ResolveBody& body,
                    const SagaRecord& record) {
  const std::string word = json::enum_name(body.decision);
  if (body.decision != ByHand::retry && body.decision != ByHand::accept) {
    return reply_error(turn, input.reply,
                       fail(ErrorCode::invalid_transition,
                            cat(record.transaction_id.str(), " is ", json::enum_name(record.state), ": ", word,
                                " is no answer to that; retry and accept are, once it is parked"),
                            "/decision"));
  }
  if (const Status done = resolve_saga(turn, record, body.decision == ByHand::retry, body.reason); !done) {
    return reply_error(turn, input.reply, done.error());
  }
  keep_override(turn,
                {record.transaction_id, word, json::enum_name(record.state),
                 record.load ? record.load->worker_id : WorkerId(), body.reason, turn.wall},
                input.reply);
}

}  // namespace

void note_reason(Turn& turn, const TransactionId& id, const std::string& reason) {
  LoggedTransaction* entry = find(turn, id);
  if (entry != nullptr && turn.live.transactions.open.contains(id)) entry->reason = shortened(reason, 500);
}

void load_progressed(Turn& turn, const TransactionId& id, double progress) {
  LoggedTransaction* load = find(turn, id);
  if (load == nullptr || !turn.live.transactions.open.contains(id)) return;
  if (!load->documents.empty() && load->documents.back().name == ModelLoadingStateUpdate::document_name)
    load->documents.pop_back();
  write(turn, *load, loading_state(turn, *load, progress));
}

TransactionId next_transaction(Turn& turn) { return transaction_id(turn.live.epoch, ++turn.live.transactions_made); }

void load_refused(Turn& turn, const WorkerRecord& worker, const ModelId& model, const JobId& wanted_by,
                  const ServiceVotes& votes) {
  const auto no = first_no(votes);
  LOCKSTEP_CHECK(no != votes.end());
  auto& refused = turn.live.transactions.refused;
  const std::pair place(worker.worker_id, model);
  if (!refused.contains(place) && refused.size() >= TransactionLog::ended_max) {
    std::erase_if(refused, [&](const auto& each) {
      const WorkerRecord* known = turn.tables.liveness.workers.find(each.first.first.str());
      return known == nullptr || known->state == WorkerState::gone;
    });
    if (refused.size() >= TransactionLog::ended_max) return;
  }
  if (std::exchange(refused[place], no->service) == no->service) return;
  LoggedTransaction entry;
  entry.transaction_id = next_transaction(turn);
  entry.state = LoggedState::aborted;
  entry.model_id = model;
  entry.worker_id = worker.worker_id;
  entry.incarnation = worker.incarnation;
  entry.device_id = worker.device_id;
  if (const auto* row = turn.tables.model.models.find(model.str())) entry.bytes = row->bytes;
  entry.job_id = wanted_by;
  entry.votes = votes;
  entry.asked = false;
  entry.reason = shortened(cat(no->service, ": ", no->vote.error().message), 500);
  LoggedTransaction& load = open(turn, std::move(entry));
  write(turn, load, device_memory_document(turn, load));
  write(turn, load, model_memory_document(turn, load));
  write(turn, load, voting(load));
  write(turn, load, outcome(turn, load));
  write(turn, load, device_memory_consistency(turn, load));
  end(turn, load);
}

void load_aborts(Turn& turn, const TransactionId& id, TransactionEvent event) {
  LoggedTransaction* load = find(turn, id);
  if (load != nullptr) load->failure_point = failure_point_of(event);
}

void load_fails(Turn& turn, const TransactionId& id, std::string_view point, const std::string& reason) {
  note_reason(turn, id, reason);
  LoggedTransaction* load = find(turn, id);
  if (load == nullptr || !turn.live.transactions.open.contains(id)) return;
  load->failure_point = point;
  write(turn, *load, loading_failure(*load));
  write(turn, *load, load_saga(*load, true));
}

void allocator_sampled(Turn& turn, const WorkerRecord& worker, const MemorySample& sample) {
  for (auto& [id, load] : turn.live.transactions.entries) {
    const bool undoes = load.state == LoggedState::compensating || load.state == LoggedState::parked;
    if (!load.unproven || load.worker_id != worker.worker_id) continue;
    if (turn.live.transactions.open.contains(id) && !undoes) continue;
    ReleaseProof proof{ledger_is_free_of(turn, load), {}, {}, {}};
    if (load.incarnation == worker.incarnation) {
      ++load.samples;
      if (!may_show_release(load)) continue;
      const Bytes most = released_at_most(sample.models, load.bytes, load.before);
      if (sample.used <= most) {
        proof.allocator = true;
      } else if (!sample.idle || sample.used <= most + (sample.ledger - sample.models)) {
        continue;  // it works, another load copies, or something was granted: what is theirs is not known
      } else {
        proof.allocator = false;
      }
      proof.driver = driver_agrees(turn, load);
      if (!*proof.allocator) {
        proof.found = cat("the worker holds ", to_text(sample.used), ", its ledger has ", to_text(sample.ledger));
      } else if (proof.driver == false) {
        proof.found =
            cat("the driver counts ", to_text(beyond_allocator(turn, load.worker_id).value()),
                " for the worker beyond its allocator; when the load began it was ", to_text(*load.beyond_allocator));
      }
    } else {
      proof.found = cat("incarnation ", load.incarnation.value, " of the worker is gone, and what it held with it");
    }
    load.unproven = proof.allocator == false || proof.driver == false;  // looked at again with the next sample
    if (load.unproven && !load.documents.empty() &&
        load.documents.back().name == PartialAllocationFailure::document_name) {
      load.documents.pop_back();
    }
    write(turn, load, partial_allocation(load, std::move(proof)));
  }
}

TransactionId image_transaction(const std::string& run_id) {
  std::string name = cat("tx_", run_id);
  std::ranges::replace_if(name, [](char c) { return c == ':' || c == '/'; }, '_');
  return TransactionId(name);
}

void image_began(Turn& turn, const JobId& job, const std::string& run_id, std::uint32_t attempt,
                 const WorkerRecord& worker) {
  turn.live.transactions.begun.push_back({job, run_id, attempt, worker.worker_id});
}

namespace {

/// The runs that were begun by the decision before this one: their rows are there now.
bool take_up_images(Turn& turn) {
  auto& begun = turn.live.transactions.begun;
  bool any = false;
  for (const BegunImage& each : std::exchange(begun, {})) {
    const inference::Run* run = turn.tables.inference.runs.find(each.job_id.str());
    const WorkerRecord* worker = turn.tables.liveness.workers.find(each.worker_id.str());
    if (run == nullptr || run->run_id != each.run_id || worker == nullptr) continue;
    const TransactionId id = image_transaction(each.run_id);
    if (find(turn, id) != nullptr) continue;  // the worker is back with what is known here
    LoggedTransaction image;
    image.transaction_id = id;
    image.kind = TransactionKind::image;
    image.state = LoggedState::committing;
    image.model_id = run->model_id;
    image.worker_id = worker->worker_id;
    image.incarnation = worker->incarnation;
    image.device_id = worker->device_id;
    if (const auto* model = turn.tables.model.models.find(run->model_id.str())) image.bytes = model->bytes;
    image.job_id = each.job_id;
    image.run_id = each.run_id;
    image.attempt = each.attempt;
    image.decided = turn.wall;
    LoggedTransaction& kept = open(turn, std::move(image));
    write(turn, kept, processing_inference_document(turn, kept));
    write(turn, kept, session_sync(turn, kept, "prepared"));
    write(turn, kept, inference_postprocessing_document(turn, kept));
    write(turn, kept, pipeline_flow(turn, kept));
    write(turn, kept, image_saga(kept));
    any = true;
  }
  return any;
}

}  // namespace

void take_up_loads(Turn& turn) {
  for (const auto& [key, entry] : turn.tables.model.residencies.entries()) {
    const model::Residency& held = entry.row;
    if (held.state != model::ResidencyState::loading) continue;
    LoggedTransaction load;
    load.transaction_id = held.transaction_id;
    load.model_id = held.model_id;
    load.worker_id = held.worker_id;
    load.incarnation = held.incarnation;
    load.device_id = held.device_id;
    load.job_id = held.wanted_by;
    if (const auto* bytes = turn.tables.memory.allocations.find(held.allocation_id.str())) load.bytes = bytes->bytes;
    LoggedTransaction& kept = open(turn, std::move(load));
    kept.state = LoggedState::committing;
    kept.decided = turn.wall;
    write(turn, kept, outcome(turn, kept));
    write(turn, kept, load_saga(kept));
  }
}

bool settle_transactions(Turn& turn) {
  for (const auto& [id, intent] : turn.live.intents) {
    if (find(turn, id) != nullptr) continue;
    began(turn, intent);
    return true;
  }
  if (take_up_images(turn)) return true;
  for (const TransactionId& id : turn.live.transactions.open) {
    LoggedTransaction& entry = turn.live.transactions.entries.at(id);
    const bool undoes = entry.state == LoggedState::compensating || entry.state == LoggedState::parked;
    const bool changed = undoes                                      ? follow_saga(turn, entry)
                         : entry.kind == TransactionKind::model_load ? follow_load(turn, entry)
                                                                     : follow_image(turn, entry);
    if (changed) return true;  // the set may have changed too
  }
  return take_up_saga(turn);
}

std::optional<std::string> transaction_view_text(const Turn& turn, const std::string& path) {
  constexpr std::string_view all = "transactions";
  constexpr std::string_view one = "transactions/";
  if (path == all) {
    TransactionsView view{turn.live.rev, {}};
    for (const auto& [id, entry] : turn.live.transactions.entries) view.transactions.push_back(view_of(turn, entry));
    std::ranges::stable_sort(view.transactions, {}, &TransactionView::began);
    return json::to_text(view);
  }
  if (!path.starts_with(one)) return std::nullopt;
  const std::string id = path.substr(one.size());
  const auto place = turn.live.transactions.entries.find(TransactionId(id));
  const TransactionOverride* by_hand = turn.tables.transactions.overrides.find(id);
  if (place == turn.live.transactions.entries.end() && by_hand == nullptr) return std::nullopt;
  TransactionView view;
  if (place != turn.live.transactions.entries.end()) {
    view = view_of(turn, place->second);
    view.documents.emplace();
    for (const TransactionDocument& each : place->second.documents) {
      view.documents->push_back({to_rfc3339(each.at), each.name, each.body});
    }
  } else {
    view.transaction_id = TransactionId(id);
    const bool of_request = by_hand->was == "parked" && by_hand->participant.empty();
    view.kind = json::enum_name(of_request ? TransactionKind::rollback : TransactionKind::model_load);
    view.state = by_hand->decision == "commit" ? "committed" : "compensated";
    view.worker_id = by_hand->participant;
    view.began = view.changed = to_rfc3339(by_hand->at);
  }
  if (by_hand != nullptr) view.resolved_by_hand = *by_hand;
  return json::to_text(view);
}

void on_resolve_transaction(Turn& turn, const in::ResolveTransaction& input) {
  constexpr std::string_view before = "transactions/";
  constexpr std::string_view after = "/resolve";
  const TransactionId id(input.path.substr(before.size(), input.path.size() - before.size() - after.size()));
  const auto refuse = [&](Error why) { reply_error(turn, input.reply, why); };
  const auto body = read_command_body<ResolveBody>(input.body);
  if (!body) return refuse(body.error());
  if (body->reason.empty() || body->reason.size() > 500) {
    return refuse(fail(ErrorCode::invalid_argument,
                       cat("the reason has ", body->reason.size(), " bytes; 1 to 500 are allowed"), "/reason"));
  }
  if (const SagaRecord* record = turn.tables.transactions.sagas.find(saga_id_of(id))) {
    return resolve_parked(turn, input, *body, *record);
  }
  const bool commit = body->decision == ByHand::commit;
  const auto intent = turn.live.intents.find(id);
  const Decision* decision = turn.tables.transactions.decisions.find(id.str());
  if (intent == turn.live.intents.end() && decision == nullptr) {
    const auto known = turn.live.transactions.entries.find(id);
    if (known == turn.live.transactions.entries.end()) {
      return refuse(fail(ErrorCode::not_found, cat("there is no transaction ", shortened(id.str()))));
    }
    return refuse(fail(ErrorCode::invalid_transition,
                       cat(id.str(), " is ", json::enum_name(known->second.state), ": nothing waits for a decision")));
  }
  if (!commit && body->decision != ByHand::abort) {
    return refuse(fail(ErrorCode::invalid_transition,
                       cat(id.str(), " is open: ", json::enum_name(body->decision),
                           " is for a saga that is parked; here it is commit or abort"),
                       "/decision"));
  }
  if (intent != turn.live.intents.end() && commit) {
    return refuse(
        fail(ErrorCode::invalid_transition, cat(id.str(), " prepares: ", intent->second.worker_id.str(),
                                                " has not promised what it needs, so it can only be aborted")));
  }
  const WorkerId participant = decision != nullptr ? decision->participant : intent->second.worker_id;
  const TransactionOverride row{id,
                                json::enum_name(body->decision),
                                json::enum_name(state_of(turn.tables, turn.live.intents, id)),
                                participant,
                                body->reason,
                                turn.wall};
  const std::string why = cat("a person decided: ", row.reason);
  if (intent != turn.live.intents.end()) {
    abort_load(turn, id, TransactionEvent::overruled, why, fail(ErrorCode::unavailable, why));
  } else if (commit) {
    end_transaction(turn.tables, id, TransactionEvent::acknowledged, turn.change);  // as if it had said so
  } else {
    // Decided means decided: the participant may hold what it promised, and only its end makes that untrue. Its end
    // undoes the load in the ledger too.
    note_reason(turn, id, why);
    end_worker(turn, participant, cat("the commit of ", id.str(), " was overruled: ", row.reason));
  }
  keep_override(turn, row, input.reply);
}

}  // namespace lockstep
