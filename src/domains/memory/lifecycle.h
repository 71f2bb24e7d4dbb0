#pragma once

// The life of an allocation, from the decision that grants it until its bytes are proven free: then its row is gone.

#include <boost/describe.hpp>

#include "base/transition_table.h"

namespace lockstep::memory {

/// allocated  decided; the worker may be copying     in_use     the worker reported it
/// releasing  the worker was told to give it back; still counted until it says that it did, or is proven gone
enum class AllocationState { allocated, in_use, releasing };
BOOST_DESCRIBE_ENUM(AllocationState, allocated, in_use, releasing)

enum class AllocationEvent { reported, told_to_release };
BOOST_DESCRIBE_ENUM(AllocationEvent, reported, told_to_release)

inline constexpr auto allocation_lifecycle = transition_table<AllocationState, AllocationEvent>({
    {AllocationState::allocated, AllocationEvent::reported, AllocationState::in_use},
    {AllocationState::in_use, AllocationEvent::told_to_release, AllocationState::releasing},
});
static_assert(allocation_lifecycle.deterministic());

}  // namespace lockstep::memory
