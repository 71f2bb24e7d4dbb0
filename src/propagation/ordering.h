#pragma once

// The two sequential chains of §2.8, as data and as a gate. A change of a later stage is held until every earlier
// change of an earlier stage that is about the same device has been applied by all of its live targets. What is held
// follows from the rows of the outbox alone, so a restart of the orchestrator changes nothing. Samples and everything
// that has no stage never wait. The stages of the second chain that are work and no change of state (loading a model,
// running it) are held by who dispatches them.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "propagation/outbox.h"
#include "propagation/urgency_table.h"

namespace lockstep {

enum class Chain : std::uint8_t { health, allocation };
BOOST_DESCRIBE_ENUM(Chain, health, allocation)

/// One event in one stage. name: the stage as the specification calls it.
struct StageRow {
  Chain chain;
  int stage;  // from 0
  std::string_view name;
  FrameType type;
};
std::span<const StageRow> ordering_table();

/// The stage of an event type in a chain; nothing when it has none there.
std::optional<int> stage_of(Chain chain, std::string_view type);

/// Whether `row` has to be applied before a change of this type about this device that was decided in `rev`. Changes
/// of one rev travel together, so none of them comes before another.
bool comes_before(const Delivery& row, std::string_view type, const DeviceId& about, Rev rev);

/// What keeps the change back now. waited_for(row): its target lives, has not answered, and is not late.
template <class WaitedFor>
std::vector<const Delivery*> held_by(const PropagationTables& tables, std::string_view type, const DeviceId& about,
                                     Rev rev, WaitedFor&& waited_for) {
  std::vector<const Delivery*> rows;
  for (const auto& [key, entry] : tables.deliveries.entries()) {
    if (comes_before(entry.row, type, about, rev) && waited_for(entry.row)) rows.push_back(&entry.row);
  }
  return rows;
}

/// The chains as Markdown, for docs/propagation.md and `lockstep message urgency`.
std::string ordering_document();

}  // namespace lockstep
