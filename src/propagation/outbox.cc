#include "propagation/outbox.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

std::string delivery_key(const WorkerId& worker, std::string_view type, std::string_view subject) {
  return cat(worker.str(), "/", type, "/", subject);
}

std::vector<const Delivery*> pending(const PropagationTables& tables, const WorkerId& worker, Incarnation incarnation) {
  std::vector<const Delivery*> rows;
  const auto& entries = tables.deliveries.entries();
  const std::string prefix = cat(worker.str(), "/");
  for (auto at = entries.lower_bound(prefix); at != entries.end() && at->first.starts_with(prefix); ++at) {
    if (is_pending(at->second.row, incarnation)) rows.push_back(&at->second.row);
  }
  std::ranges::stable_sort(rows, {}, [](const Delivery* row) { return row->intended_rev; });
  return rows;
}

StateChanges message_of(std::span<const Delivery* const> rows, bool snapshot) {
  LOCKSTEP_CHECK(!rows.empty());
  StateChanges message;
  message.snapshot = snapshot;
  for (const Delivery* row : rows) {
    message.rev = std::max(message.rev, row->intended_rev.value);
    message.events.push_back({row->type, row->subject, row->intended_rev.value, row->intended});
  }
  return message;
}

Result<std::vector<Delivery>> confirm(const PropagationTables& tables, const WorkerId& worker, Incarnation incarnation,
                                      const StateApplied& answer) {
  std::vector<Delivery> rows;
  for (std::size_t i = 0; i < answer.results.size(); ++i) {
    const AppliedResult& result = answer.results[i];
    const Delivery* before = tables.deliveries.find(delivery_key(worker, result.type, result.subject));
    if (before == nullptr || result.rev == 0 || result.rev > before->intended_rev.value) {
      return fail(ErrorCode::invalid_argument,
                  cat(shortened(result.type), " of \"", shortened(result.subject), "\" at rev ", result.rev,
                      " was never sent to ", worker.str()),
                  cat("/results/", i));
    }
    const Rev rev{result.rev};
    if (before->confirmed_by == incarnation && before->confirmed_rev >= rev) continue;
    Delivery row = *before;
    row.confirmed_by = incarnation;
    row.confirmed_rev = rev;
    row.outcome = result.outcome;
    row.reason = shortened(result.reason, 500);
    if (result.outcome == AppliedOutcome::applied && rev == row.intended_rev) row.confirmed = row.intended;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::optional<Nanos> redelivery_wait(int sent) {
  LOCKSTEP_CHECK(sent >= 1);
  if (sent > redeliveries_max) return std::nullopt;
  Nanos wait = redelivery_first;
  for (int i = 1; i < sent; ++i) wait = std::min(2 * wait, redelivery_max);
  return wait;
}

}  // namespace lockstep
