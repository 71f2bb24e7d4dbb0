#pragma once

// What each worker shall know and what it has confirmed (§2.1 steps 4 to 6). A change of state for a worker is a row,
// written in the commit that decides it; it is confirmed by a row, too. So intended and confirmed survive a restart of
// the orchestrator, both can be read with their revs, and what is still to be told follows from the rows alone:
// "list at rev, then watch from rev + 1" needs no history. A worker's rows end with its life. docs/propagation.md.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "events/state_messages.h"
#include "propagation/facts.h"
#include "propagation/merge.h"
#include "state/table.h"

namespace lockstep {

/// type, subject   what it is about: one row for each
/// about           the device that it changes: of a setting the worker's own, of a fact the one that the fact is about
/// urgency         its lane: from §2.7's table, or as the level of the fact demands
/// intended        the body as the worker shall know it: differences are summed up
/// confirmed_by    the incarnation that answered; its state dies with it, so a newer one has confirmed nothing
/// confirmed_rev   up to which rev it answered; below intended_rev the answer is about an older value
struct Delivery {
  WorkerId worker_id;
  std::string type;
  std::string subject;
  DeviceId about;
  Urgency urgency = Urgency::p2_normal;
  Rev intended_rev;
  RawJson intended{"{}"};
  Incarnation confirmed_by;
  Rev confirmed_rev;
  RawJson confirmed{"{}"};  // the newest body that was applied
  AppliedOutcome outcome = AppliedOutcome::not_yet;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(Delivery, (),
                      (worker_id, type, subject, about, urgency, intended_rev, intended, confirmed_by, confirmed_rev,
                       confirmed, outcome, reason))

struct PropagationTables {
  Table<Delivery> deliveries{"propagation.deliveries"};  // key: worker/type/subject

  template <class Self, class F>
  static void each(Self& self, F& f) {
    f(self.deliveries);
  }
  template <class F>
  void for_each_table(F&& f) {
    each(*this, f);
  }
  template <class F>
  void for_each_table(F&& f) const {
    each(*this, f);
  }
};

/// The worker's process has not answered for what is intended now.
inline bool is_pending(const Delivery& row, Incarnation incarnation) {
  return row.confirmed_by != incarnation || row.confirmed_rev < row.intended_rev;
}

std::string delivery_key(const WorkerId& worker, std::string_view type, std::string_view subject);

/// The row after `body` was decided in `rev`. `before`: the row as it is, nullptr when there is none.
template <class Body>
Delivery intend(const Delivery* before, const WorkerId& worker, const Body& body, Rev rev, const DeviceId& about = {},
                Urgency urgency = Urgency::p2_normal) {
  Delivery row = before == nullptr ? Delivery{} : *before;
  row.worker_id = worker;
  row.type = Body::event_type;
  row.subject = subject_of(body);
  row.about = about;
  row.urgency = urgency;
  row.intended_rev = rev;
  Body whole = body;
  if (before != nullptr) {
    if (const auto old = json::from_text<Body>(before->intended.text)) whole = merged(*old, body);
  }
  row.intended = RawJson{json::to_text(whole)};
  return row;
}

/// What this process of the worker must still be told, in the order of the revs. With none confirmed by it, that is
/// everything: the list of a worker that joins.
std::vector<const Delivery*> pending(const PropagationTables& tables, const WorkerId& worker, Incarnation incarnation);

/// One message of them. snapshot: they are all that the worker shall know. Rows must not be empty.
StateChanges message_of(std::span<const Delivery* const> rows, bool snapshot);

/// The rows that the answer changes. invalid_argument for an answer about what was never intended. One about a value
/// that is no longer intended leaves its row pending; one that was overtaken by a newer answer changes nothing.
Result<std::vector<Delivery>> confirm(const PropagationTables& tables, const WorkerId& worker, Incarnation incarnation,
                                      const StateApplied& answer);

/// When to send again what was not confirmed: 2 s after the first time, then twice as long, up to 30 s. From the first
/// repetition on nobody waits for this target any more (ordering.h); after six times in all (a minute and a half) it is
/// left alone until something new is to be told, or it joins again.
inline constexpr Nanos redelivery_first = seconds(2);
inline constexpr Nanos redelivery_max = seconds(30);
inline constexpr int redeliveries_max = 6;
/// Nothing when it was sent often enough. `sent`: how often, at least once.
std::optional<Nanos> redelivery_wait(int sent);

}  // namespace lockstep
