#pragma once

// Closed sets of words that several domains use. A word outside a set is refused: what it asks for could not be
// honoured, and doing something else instead would be a lie. Whatever is only told (purposes, reasons, stages,
// capabilities) is an open std::string.

#include <boost/describe.hpp>

namespace lockstep {

/// How much the sender wants it (§4.1). Not the lane of a message on a link, which is an Urgency (§2.7).
enum class AllocationPriority { critical, high, normal, low };
BOOST_DESCRIBE_ENUM(AllocationPriority, critical, high, normal, low)

/// How a saga stands (§3.6). parked: its compensation cannot go on without a person; it is kept and shown, never
/// dropped.
enum class SagaStatus { running, completed, compensating, compensated, parked };
BOOST_DESCRIBE_ENUM(SagaStatus, running, completed, compensating, compensated, parked)

}  // namespace lockstep
