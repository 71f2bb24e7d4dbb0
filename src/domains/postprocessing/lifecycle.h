#pragma once

// The life of a run: one attempt of one job on one incarnation (§1.6). A run that ends without a result is replaced by
// the next attempt's.

#include <boost/describe.hpp>

#include "base/transition_table.h"

namespace lockstep::postprocessing {

enum class RunState { executing, completed };
BOOST_DESCRIBE_ENUM(RunState, executing, completed)

enum class RunEvent { postprocessing_completed };
BOOST_DESCRIBE_ENUM(RunEvent, postprocessing_completed)

inline constexpr auto run_lifecycle = transition_table<RunState, RunEvent>({
    {RunState::executing, RunEvent::postprocessing_completed, RunState::completed},
});
static_assert(run_lifecycle.deterministic());

}  // namespace lockstep::postprocessing
