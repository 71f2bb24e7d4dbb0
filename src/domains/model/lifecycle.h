#pragma once

// The life of a model on one worker (§1.3). It begins with the load's decision and ends when its memory is proven
// free: then its row is gone.

#include <boost/describe.hpp>

#include "base/transition_table.h"

namespace lockstep::model {

enum class ResidencyState { loading, loaded, releasing };
BOOST_DESCRIBE_ENUM(ResidencyState, loading, loaded, releasing)

enum class ResidencyEvent { copied, told_to_release };
BOOST_DESCRIBE_ENUM(ResidencyEvent, copied, told_to_release)

inline constexpr auto residency_lifecycle = transition_table<ResidencyState, ResidencyEvent>({
    {ResidencyState::loading, ResidencyEvent::copied, ResidencyState::loaded},
    {ResidencyState::loaded, ResidencyEvent::told_to_release, ResidencyState::releasing},
});
static_assert(residency_lifecycle.deterministic());

}  // namespace lockstep::model
