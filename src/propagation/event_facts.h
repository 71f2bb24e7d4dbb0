#pragma once

// What streams say about an event beside its body: how urgent it is and which domain it belongs to (§2.7).

#include <optional>
#include <string_view>

#include "base/urgency.h"
#include "propagation/urgency_table.h"

namespace lockstep {

/// domain: the section of §2 that a message stands in, for our own names what they begin with; absent for a note of the
/// stream itself.
struct EventFacts {
  Urgency urgency = Urgency::p2_normal;
  std::optional<Domain> domain;
};

/// type: an event type of §2, or a name of ours. The lane is the table's, by what the body says.
EventFacts event_facts(std::string_view type, std::string_view body);

}  // namespace lockstep
