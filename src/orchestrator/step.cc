// The main path of the orchestrator (design §2): one input becomes at most one commit and the effects that follow it.
// This file only chains; the handlers stand in on_*.cc beside it, what spans domains in operations/.

#include <variant>

#include "base/check.h"
#include "orchestrator/admission.h"
#include "orchestrator/coordination.h"
#include "orchestrator/machine.h"
#include "orchestrator/on_key.h"
#include "orchestrator/on_saga.h"
#include "orchestrator/on_session.h"
#include "orchestrator/on_transactions.h"
#include "orchestrator/turn.h"
#include "ownership/table.h"

namespace lockstep {

namespace {

template <class... Fs>
struct Match : Fs... {
  using Fs::operator()...;
};

/// A command of people. It may only change what the orchestrator owns and lets people change (§1).
template <class Command>
void command(Turn& turn, const Command& input, void (*handler)(Turn&, const Command&)) {
  static_assert(ownership::people_may_change(Command::changes), "people may not change this fact");
  handler(turn, input);
}

/// Closes a turn: its changes become the commit, whose events every stream will show under its rev.
Plan<Effect> close(Turn& turn) {
  keep_late_answers(turn);
  if (turn.change.empty()) return std::move(turn.plan);
  turn.plan.commit = turn.change.take(turn.wall);
  if (!turn.plan.commit->events.empty()) {
    turn.effect(out::Publish{turn.live.rev.next(), turn.wall, turn.plan.commit->events});
  }
  return std::move(turn.plan);
}

}  // namespace

Orchestrator::Orchestrator(Settings settings) : settings_(std::move(settings)) {}

Plan<Effect> Orchestrator::step(const Input& input) {
  now_ = input.now;
  Turn turn{tables_, settings_, live_, input.now, input.wall, {}, {}};
  if (input.key && answered_by_key(turn, *input.key)) return close(turn);
  std::visit(Match{
                 [&](const in::Started& x) { on_started(turn, x); },
                 [&](const in::WorkerSpawned& x) { on_worker_spawned(turn, x); },
                 [&](const in::WorkerDialed& x) { on_worker_dialed(turn, x); },
                 [&](const in::WorkerGone& x) { on_worker_gone(turn, x); },
                 [&](const in::WorkerDying& x) { on_worker_dying(turn, x); },
                 [&](const in::FrameArrived& x) { on_frame(turn, x); },
                 [&](const in::LinkClosed& x) { on_link_closed(turn, x); },
                 [&](const in::TimerFired& x) { on_timer(turn, x); },
                 [&](const in::ModelsScanned& x) { on_models_scanned(turn, x); },
                 [&](const in::SegmentFilled& x) { on_segment_filled(turn, x); },
                 [&](const in::PixelsOpened& x) { on_pixels_opened(turn, x); },
                 [&](const in::PixelsStored& x) { on_pixels_stored(turn, x); },
                 [&](const in::OutputRemoved& x) { on_output_removed(turn, x); },
                 [&](const in::Generate& x) { command(turn, x, on_generate); },
                 [&](const in::Check& x) { command(turn, x, on_check); },
                 [&](const in::View& x) { on_view(turn, x); },
                 [&](const in::Cancel& x) { command(turn, x, on_cancel); },
                 [&](const in::RestartWorker& x) { command(turn, x, on_restart_worker); },
                 [&](const in::CalibrateDevice& x) { command(turn, x, on_calibrate_device); },
                 [&](const in::LoadModel& x) { command(turn, x, on_load_model); },
                 [&](const in::UnloadModel& x) { command(turn, x, on_unload_model); },
                 [&](const in::VerifyModel& x) { command(turn, x, on_verify_model); },
                 [&](const in::FilesHashed& x) { on_files_hashed(turn, x); },
                 [&](const in::AddModel& x) { command(turn, x, on_add_model); },
                 [&](const in::RemoveModel& x) { command(turn, x, on_remove_model); },
                 [&](const in::FilesMoved& x) { on_files_moved(turn, x); },
                 [&](const in::KeepJournal& x) { on_keep_journal(turn, x); },
                 [&](const in::JournalKept& x) { on_journal_kept(turn, x); },
                 [&](const in::Set& x) { command(turn, x, on_set); },
                 [&](const in::SystemMemory& x) { on_system_memory(turn, x); },
                 [&](const in::DataDisk& x) { on_data_disk(turn, x); },
                 [&](const in::CommandSession& x) { command(turn, x, on_command_session); },
                 [&](const in::CommandWorkflow& x) { command(turn, x, on_command_workflow); },
                 [&](const in::TagOutput& x) { command(turn, x, on_tag_output); },
                 [&](const in::ResolveTransaction& x) { command(turn, x, on_resolve_transaction); },
                 [&](const in::SetSafetyPolicy& x) { command(turn, x, on_set_safety_policy); },
                 [&](const in::ListOutputs& x) { on_list_outputs(turn, x); },
                 [&](const in::ReplyGone& x) { on_reply_gone(turn, x); },
                 [&](const in::StopRequested&) { on_stop(turn); },
             },
             input.what);
  if (input.key) keep_answer(turn, *input.key, place_of(input.what));
  return close(turn);
}

Plan<Effect> Orchestrator::settle(const Input& input) {
  Turn turn{tables_, settings_, live_, input.now, input.wall, {}, {}};
  if (live_.started && !live_.stopped) {
    settle_transactions(turn) || settle_pixels(turn) || settle_answers(turn) || settle_deliveries(turn) ||
        settle_calibrations(turn) || settle_workers(turn) || settle_sessions(turn) || settle_memory(turn) ||
        settle_coordination(turn) || settle_models(turn) || settle_jobs(turn);
  }
  return close(turn);
}

Status Orchestrator::change(const Commit& commit, std::optional<Nanos> now) {
  if (now) {
    const CommitCount count(tables_, commit);
    LOCKSTEP_TRY_STATUS(apply_changes(tables_, commit));
    count.applied(tables_, now, live_.counters);
  } else {
    LOCKSTEP_TRY_STATUS(apply_changes(tables_, commit));  // recovery counts what it has in the end
  }
  live_.rev = commit.rev;
  for (const FactChange& fact : commit.changes) {
    changed_.emplace_hint(changed_.end(), fact.table, fact.key);  // where recovery's belong
    if (fact.table == tables_.requests.requests.name()) {
      note_dependency(live_.dependencies, fact.key, tables_.requests.requests.find(fact.key));
    }
    if (fact.table == tables_.processing.sessions.name()) {
      const processing::Session* session = tables_.processing.sessions.find(fact.key);
      if (session != nullptr && !processing::is_terminal(session->state)) {
        live_.open_sessions.insert(fact.key);
      } else {
        live_.open_sessions.erase(fact.key);
      }
    }
    if (fact.table == tables_.propagation.deliveries.name()) {
      for (const auto& [id, live] : live_.workers) live_.untold.insert(id);  // it may have held up what others wait for
    }
    if (fact.table != tables_.processing.jobs.name()) continue;
    const processing::Job* job = tables_.processing.jobs.find(fact.key);
    if (job != nullptr && !processing::is_terminal(job->stage)) {
      live_.open_jobs.insert(JobId(fact.key));
    } else {
      live_.open_jobs.erase(JobId(fact.key));
    }
  }
  return {};
}

void Orchestrator::apply(const Commit& commit) {
  LOCKSTEP_CHECK(commit.rev == live_.rev.next());
  LOCKSTEP_CHECK(change(commit, now_).has_value());
}

void Orchestrator::begin_snapshot() {
  LOCKSTEP_CHECK(unsaved_.empty());
  unsaved_ = std::exchange(changed_, {});
}

std::vector<SnapshotRow> Orchestrator::take_snapshot_rows(std::size_t rows_max, std::size_t bytes_max) {
  std::vector<SnapshotRow> rows;
  for (std::size_t bytes = 0; !unsaved_.empty() && rows.size() < rows_max && bytes < bytes_max;) {
    auto name = std::move(unsaved_.extract(unsaved_.begin()).value());
    SnapshotRow row{std::move(name.first), std::move(name.second), std::nullopt, Rev{}};
    tables_.for_each_table([&](const auto& table) {
      if (table.name() != row.table) return;
      const auto entry = table.entries().find(row.key);
      if (entry == table.entries().end()) return;
      row.value = json::to_text(entry->second.row);
      row.mod_rev = entry->second.mod_rev;
    });
    bytes += row.key.size() + (row.value ? row.value->size() : 0);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace lockstep
