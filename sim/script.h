#pragma once

// Scripts of at most three operations, for the exhaustive mode: small enough that a crash can be tried at every point.

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace lockstep::sim {

/// load, unload    of `model`, on worker_0
/// generate        `images` of `model`; under a key if it has one, and then the same again is the same request
/// generate_gated  the same with a second image that fails its gate, and takes the first back
/// cancel          the newest request that was accepted
/// pause           worker_0 stands still for longer than a vote may take
struct Act {
  enum class What { load, unload, generate, generate_gated, cancel, pause };
  Nanos at;
  What what;
  std::string_view model = "base-a";
  std::uint32_t images = 1;
  std::string_view key = "";
};

/// failing_loads  so many loads fail after they were decided
/// refusing       workers are told of less memory than the orchestrator grants, and vote no
struct Script {
  std::string_view name;
  std::string_view says;
  std::vector<Act> acts;
  int failing_loads = 0;
  bool refusing = false;
};

const std::vector<Script>& scripts();
/// nullptr when there is none of that name.
const Script* script_of(std::string_view name);

}  // namespace lockstep::sim
