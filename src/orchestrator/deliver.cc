#include "orchestrator/deliver.h"

#include <algorithm>

#include "base/text.h"
#include "domains/device/throttle.h"
#include "orchestrator/on_device.h"
#include "orchestrator/on_memory.h"

namespace lockstep {

namespace {

constexpr device::CommandLimits limits;

/// A value that was answered: the event that people see (§2.1 step 5).
struct StateConfirmed {
  WorkerId worker_id;
  std::string type;
  std::string subject;
  Rev intended_rev;
  Rev confirmed_rev;
  AppliedOutcome outcome = AppliedOutcome::applied;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(StateConfirmed, (), (worker_id, type, subject, intended_rev, confirmed_rev, outcome, reason))

struct StateUnconfirmed {
  WorkerId worker_id;
  std::vector<std::string> changes;
};
BOOST_DESCRIBE_STRUCT(StateUnconfirmed, (), (worker_id, changes))

std::string key_of(const Delivery& row) { return delivery_key(row.worker_id, row.type, row.subject); }

/// Over which something can be said now.
bool hears(const Turn& turn, const WorkerRecord& worker) {
  const auto live = turn.live.workers.find(worker.worker_id);
  return worker.state == WorkerState::ready && live != turn.live.workers.end() && live->second.link_open &&
         !live->second.kill_sent;
}

/// A target that was asked twice in vain, or that says nothing at all, holds up nobody.
bool is_waited_for(const Turn& turn, const Delivery& row) {
  const WorkerRecord* worker = turn.tables.liveness.workers.find(row.worker_id.str());
  if (worker == nullptr || !hears(turn, *worker) || !is_pending(row, worker->incarnation)) return false;
  const auto lane = turn.live.deliveries.find(row.worker_id);
  return !turn.live.workers.at(row.worker_id).silent && (lane == turn.live.deliveries.end() || lane->second.sent <= 1);
}

std::vector<const Delivery*> held_by(const Turn& turn, std::string_view type, const DeviceId& about, Rev rev) {
  return lockstep::held_by(turn.tables.propagation, type, about, rev,
                           [&](const Delivery& row) { return is_waited_for(turn, row); });
}

/// What holds up something more urgent inherits its urgency: it is sent once more, in that lane, in front of all that
/// waits in its own.
void lift(Turn& turn, const std::vector<const Delivery*>& rows, Urgency urgency) {
  for (const Delivery* row : rows) {
    DeliveryLane& lane = turn.live.deliveries[row->worker_id];
    const auto told = lane.told.find(key_of(*row));
    if (told == lane.told.end() || told->second.urgency <= urgency) continue;
    told->second = {Rev{}, urgency};
    turn.live.untold.insert(row->worker_id);
  }
}

/// The rows that may leave now. A decision leaves whole: one of its rows that is held holds the others.
std::vector<const Delivery*> due_rows(Turn& turn, const WorkerRecord& worker, const DeliveryLane& lane) {
  std::vector<const Delivery*> rows = pending(turn.tables.propagation, worker.worker_id, worker.incarnation);
  std::set<Rev> held;
  for (const Delivery* row : rows) {
    const auto before = held_by(turn, row->type, row->about, row->intended_rev);
    if (before.empty()) continue;
    held.insert(row->intended_rev);
    lift(turn, before, row->urgency);
  }
  std::erase_if(rows, [&](const Delivery* row) {
    const auto told = lane.told.find(key_of(*row));
    const bool out = told != lane.told.end() && told->second.rev == row->intended_rev;
    return held.contains(row->intended_rev) || (out && !lane.again);
  });
  std::ranges::stable_sort(rows, {}, [](const Delivery* row) {
    const int stages[] = {stage_of(Chain::health, row->type).value_or(0),
                          stage_of(Chain::allocation, row->type).value_or(0)};
    return std::pair(row->intended_rev, std::max(stages[0], stages[1]));
  });
  return rows;
}

/// Nothing that this incarnation confirmed and nothing that it was told: what comes now is everything.
bool is_first(const Turn& turn, const WorkerRecord& worker, const DeliveryLane& lane) {
  return lane.told.empty() && std::ranges::none_of(turn.tables.propagation.deliveries.entries(), [&](const auto& each) {
           return each.second.row.worker_id == worker.worker_id && each.second.row.confirmed_by == worker.incarnation;
         });
}

/// §1.1 command queue throttling. False: it waits for an answer, or for a token, for which a timer is armed.
bool has_room(Turn& turn, const WorkerRecord& worker, DeliveryLane& lane) {
  lane.tokens = lane.used ? device::refilled(lane.tokens, turn.now - lane.refilled, limits) : limits.burst;
  lane.used = true;
  lane.refilled = turn.now;
  if (device::may_send(lane.unanswered.size(), lane.tokens, limits)) {
    lane.tokens -= 1;
    return true;
  }
  ++turn.live.counters.commands_throttled;
  if (lane.unanswered.size() < limits.unanswered_max) {
    const auto wait = static_cast<Nanos>((1 - lane.tokens) / limits.per_second * 1e9) + 1;
    turn.effect(out::ArmTimer{cat("command:", worker.worker_id.str()), turn.now + wait});
  }
  return false;
}

void arm(Turn& turn, const WorkerRecord& worker, DeliveryLane& lane, Nanos wait) {
  lane.due = turn.now + wait;
  turn.effect(out::ArmTimer{cat("deliver:", worker.worker_id.str()), lane.due});
}

void send_rows(Turn& turn, const WorkerRecord& worker, DeliveryLane& lane, const std::vector<const Delivery*>& rows) {
  Urgency urgency = Urgency::p3_low;
  for (const Delivery* row : rows) {
    const auto told = lane.told.find(key_of(*row));
    const bool lifted = told != lane.told.end() && told->second.rev == Rev{};
    urgency = std::min({urgency, row->urgency, lifted ? told->second.urgency : row->urgency});
  }
  if (urgency != Urgency::p0_critical && !has_room(turn, worker, lane)) return;
  const bool snapshot = is_first(turn, worker, lane);
  for (const Delivery* row : rows) {
    const auto [told, first] = lane.told.try_emplace(key_of(*row));
    if (!first && lane.again) ++turn.live.counters.redelivered[static_cast<std::size_t>(urgency)];
    told->second = {row->intended_rev, urgency};
  }
  lane.again = false;
  const std::string op_id = cat("state:", ++lane.frames_made);
  lane.unanswered.insert(op_id);
  ++turn.live.counters.commands_sent;
  // One order for all of a link: a later decision may be more urgent, and takes the earlier ones along.
  send_placed(turn, worker, FrameType::state_changes, message_of(rows, snapshot), Operation{op_id, 0, {}}, {},
              Placed{urgency, {"", "state"}});
  if (lane.sent == 0) {
    lane.sent = 1;
    arm(turn, worker, lane, *redelivery_wait(1));
  }
}

/// Commands that waited, in the order in which they were given.
void send_held(Turn& turn, const WorkerRecord& worker, DeliveryLane& lane) {
  while (!lane.held.empty()) {
    const HeldCommand& next = lane.held.front();
    const auto before = held_by(turn, json::enum_name(next.type), worker.device_id, next.rev);
    if (!before.empty()) return lift(turn, before, next.placed.lane);
    send_placed(turn, worker, next.type, next.body, next.operation, {}, next.placed);
    lane.held.erase(lane.held.begin());
  }
}

void deliver(Turn& turn, const WorkerRecord& worker) {
  DeliveryLane& lane = turn.live.deliveries[worker.worker_id];
  const auto rows = due_rows(turn, worker, lane);
  if (rows.empty()) lane.again = false;
  if (!rows.empty()) send_rows(turn, worker, lane, rows);
  send_held(turn, worker, lane);
  if (lane.sent > 0 && pending(turn.tables.propagation, worker.worker_id, worker.incarnation).empty()) {
    lane.sent = 0;
    lane.unanswered.clear();
    turn.effect(out::DisarmTimer{cat("deliver:", worker.worker_id.str())});
  }
}

}  // namespace

bool subscribes(const WorkerRecord& worker, Domains domains) {
  if (!worker.subscriptions) return true;
  bool wanted = false;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<Domain>>([&](auto each) {
    wanted = wanted || (domains.has(each.value) &&
                        std::ranges::find(*worker.subscriptions, each.name) != worker.subscriptions->end());
  });
  return wanted;
}

void look_again(Turn& turn) {
  for (const auto& [id, live] : turn.live.workers) turn.live.untold.insert(id);
}

bool settle_deliveries(Turn& turn) {
  while (!turn.live.untold.empty()) {
    const WorkerId id = *turn.live.untold.begin();
    turn.live.untold.erase(turn.live.untold.begin());
    const WorkerRecord* worker = turn.tables.liveness.workers.find(id.str());
    if (worker == nullptr || !hears(turn, *worker)) continue;
    deliver(turn, *worker);
    if (!turn.plan.effects.empty()) return true;
  }
  return false;
}

bool may_begin(const Turn& turn, const WorkerRecord& worker, FrameType type) {
  const auto before = held_by(turn, json::enum_name(type), worker.device_id, turn.live.rev.next());
  return std::ranges::none_of(before, [&](const Delivery* row) { return row->worker_id == worker.worker_id; });
}

Status state_applied(Turn& turn, const WorkerRecord& worker, const std::string& op_id, const StateApplied& answer) {
  const auto rows = LOCKSTEP_TRY(confirm(turn.tables.propagation, worker.worker_id, worker.incarnation, answer));
  DeliveryLane& lane = turn.live.deliveries[worker.worker_id];
  if (lane.unanswered.erase(op_id) > 0 && lane.sent > 0) {
    // It answers: what is still out has its full time again, and it is waited for again.
    lane.sent = 1;
    arm(turn, worker, lane, *redelivery_wait(1));
  }
  for (const Delivery& row : rows) {
    turn.change.put(turn.tables.propagation.deliveries, key_of(row), row);
    turn.change.event("state_confirmed", row.worker_id.str(),
                      StateConfirmed{row.worker_id, row.type, row.subject, row.intended_rev, row.confirmed_rev,
                                     row.outcome, row.reason});
    if (row.confirmed_rev != row.intended_rev) continue;  // about a value that is no longer intended
    const auto said = std::ranges::find_if(answer.results, [&](const AppliedResult& each) {
      return each.type == row.type && each.subject == row.subject && each.rev == row.intended_rev.value;
    });
    device_change_confirmed(turn, worker, *said);
    memory_change_confirmed(turn, worker, *said);
  }
  return {};
}

void delivery_due(Turn& turn, const WorkerRecord& worker) {
  const auto rows = pending(turn.tables.propagation, worker.worker_id, worker.incarnation);
  if (rows.empty() || !hears(turn, worker)) return;
  DeliveryLane& lane = turn.live.deliveries[worker.worker_id];
  // One that was armed for an earlier link, or that an answer has moved on, while the disk was slow.
  if (lane.sent == 0 || turn.now < lane.due) return;
  const auto wait = redelivery_wait(++lane.sent);
  lane.unanswered.clear();  // whatever they were, they are given up: an answer that still comes counts all the same
  look_again(turn);         // nobody waits for it any more
  if (!wait) {
    StateUnconfirmed late{worker.worker_id, {}};
    for (const Delivery* row : rows) late.changes.push_back(row->type);
    turn.warn(cat(worker.worker_id.str(), " has not confirmed ", late.changes.size(), " changes, ",
                  late.changes.front(), " first; it is told again when it comes back"));
    return turn.publish("state_unconfirmed", worker.worker_id.str(), late);
  }
  lane.again = true;
  arm(turn, worker, lane, *wait);
}

void begin_deliveries(Turn& turn, const WorkerRecord& worker) {
  turn.live.deliveries[worker.worker_id] = {};
  turn.live.untold.insert(worker.worker_id);
  turn.effect(out::DisarmTimer{cat("deliver:", worker.worker_id.str())});
}

void end_deliveries(Turn& turn, const WorkerRecord& worker) {
  turn.live.deliveries.erase(worker.worker_id);
  turn.effect(out::DisarmTimer{cat("deliver:", worker.worker_id.str())});
  turn.effect(out::DisarmTimer{cat("command:", worker.worker_id.str())});
  for (const auto& [key, entry] : turn.tables.propagation.deliveries.entries()) {
    if (entry.row.worker_id == worker.worker_id) turn.change.erase(turn.tables.propagation.deliveries, key);
  }
}

std::optional<std::string> propagation_view_text(const Turn& turn, const std::string& path) {
  constexpr std::string_view one = "propagation/";
  const bool all = path == "propagation";
  if (!all && !path.starts_with(one)) return std::nullopt;
  const std::string worker = all ? "" : path.substr(one.size());
  if (!all && !turn.tables.liveness.workers.contains(worker)) return std::nullopt;
  PropagationView view{turn.live.rev, {}};
  for (const auto& [key, entry] : turn.tables.propagation.deliveries.entries()) {
    if (all || entry.row.worker_id.str() == worker) view.deliveries.push_back(entry.row);
  }
  return json::to_text(view);
}

}  // namespace lockstep
