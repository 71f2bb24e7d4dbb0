#pragma once

// How urgent each message is and which domains it concerns (§2.7), as one table of (event, condition). Both sides take
// the lane of a frame from here; the six rows of the specification's matrix carry its words. docs/propagation.md is
// printed from it.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <boost/describe.hpp>

#include "base/urgency.h"
#include "events/link_messages.h"
#include "events/words.h"

namespace lockstep {

enum class Domain : std::uint8_t { device, memory, model, processing, inference, postprocessing };
BOOST_DESCRIBE_ENUM(Domain, device, memory, model, processing, inference, postprocessing)

/// A set of domains; the empty one is the link itself.
struct Domains {
  std::uint8_t bits = 0;
  constexpr bool has(Domain domain) const { return (bits >> static_cast<unsigned>(domain) & 1u) != 0; }
  constexpr bool empty() const { return bits == 0; }
  friend bool operator==(const Domains&, const Domains&) = default;
};
template <class... Each>
constexpr Domains domains_of(Each... each) {
  return {static_cast<std::uint8_t>((0u | ... | (1u << static_cast<unsigned>(each))))};
}
inline constexpr Domains all_domains{0x3F};

/// What a message's body says that changes its lane; propagation/facts.h reads it. `always` is the row without one.
enum class Condition : std::uint8_t { always, health_critical, pressure_high, loading_complete };
BOOST_DESCRIBE_ENUM(Condition, always, health_critical, pressure_high, loading_complete)

/// sample  newest wins while it waits: progress and telemetry. Everything else is never dropped.
/// matrix  the row of §2.7 that it is; empty where the specification names no lane and the choice is ours
struct UrgencyRow {
  FrameType type;
  Condition condition;
  Urgency lane;
  Domains receivers;
  bool sample = false;
  std::string_view matrix = {};
};

/// One row for each frame type without a condition, and one for each condition it knows.
std::span<const UrgencyRow> urgency_table();

/// The row of the condition; where the type has none for it, the one without.
const UrgencyRow& urgency_row(FrameType type, Condition condition);

/// A sender's own word may lower a lane, never raise it above the table's.
constexpr Urgency lowered(Urgency table, AllocationPriority word) {
  const auto said = static_cast<Urgency>(word);  // both count from critical to low
  return said > table ? said : table;
}
static_assert(static_cast<int>(AllocationPriority::low) == static_cast<int>(Urgency::p3_low));

/// The table as Markdown, for docs/propagation.md and `lockstep message urgency`.
std::string urgency_document();

}  // namespace lockstep
