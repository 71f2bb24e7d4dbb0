#pragma once

// Ownership as data (§1.1-1.6; design §2, step 2). Three tables: facts, the frames that tell of them, and the critical
// sync points. Everything that asks "may this side change this fact?" asks here, and here only.
//
// A command is a statement about a fact of its sender's: model_load_request says what the orchestrator has placed, and
// model_loading_progress says what the worker really holds. So one rule is enough: a frame may only come from the side
// that owns every fact it tells of.

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "events/envelope.h"
#include "events/link_messages.h"
#include "ownership/facts.h"

namespace lockstep::ownership {

/// tables               where the journal keeps it, as state tables; empty: volatile, told again after a restart
/// people_may_change    by an API command, through the owner's own rules
struct FactRow {
  Fact fact;
  std::string_view section;
  Side owner;
  Readers readers;
  std::array<std::string_view, 4> tables;
  bool people_may_change;
  std::string_view is;  // what it says
};

struct EventRow {
  FrameType type;
  Side sender;
  std::array<std::optional<Fact>, 2> writes;  // the first one always
};

struct SyncRow {
  SyncPoint point;
  std::string_view section;
  Side from;
  std::array<std::optional<FrameType>, 2> events;
};

std::span<const FactRow> fact_table();
std::span<const EventRow> event_table();
std::span<const SyncRow> sync_table();

const FactRow& row_of(Fact fact);
/// nullptr for a number that is no frame type.
const EventRow* row_of(FrameType type);

constexpr std::string_view name_of(Side side) { return side == Side::orchestrator ? "orchestrator" : "worker"; }

/// May `side` change `fact`? not_owner names both. §1
Status may_write(Side side, Fact fact);

/// May `side` send a frame of this type? not_owner names the first fact that is not the sender's; invalid_argument for
/// a number that no version of the protocol knows. §1
Status may_send(Side side, FrameType type);

/// A command of people that changes a fact of a worker's does not compile.
constexpr bool people_may_change(Fact fact) {
  return fact == Fact::requests || fact == Fact::worker_lives || fact == Fact::device_policies ||
         fact == Fact::device_registry || fact == Fact::memory_quotas || fact == Fact::model_metadata ||
         fact == Fact::model_cache || fact == Fact::model_placement || fact == Fact::sessions ||
         fact == Fact::workflows || fact == Fact::pipelines || fact == Fact::safety_policy || fact == Fact::outputs ||
         fact == Fact::inference_capabilities || fact == Fact::transactions;
}

/// Of a command that names by its path which of them it changes.
template <std::size_t n>
constexpr bool people_may_change(const std::array<Fact, n>& facts) {
  return std::ranges::all_of(facts, [](Fact each) { return people_may_change(each); });
}

}  // namespace lockstep::ownership
