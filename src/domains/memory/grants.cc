#include "domains/memory/grants.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace lockstep::memory {

namespace {

constexpr std::array<std::string_view, 3> device_purposes{"model_loading", "inference", "postprocessing"};

}  // namespace

bool is_device_purpose(std::string_view purpose) {
  return std::ranges::find(device_purposes, purpose) != device_purposes.end();
}

Admission admit(const PoolState& pool, Bytes wanted, std::string_view purpose, const Policy& policy) {
  const auto limit = quota(policy, purpose);
  if (limit && wanted > *limit) {
    return {false, true, cat("it wants ", to_text(wanted), "; the quota of ", purpose, " is ", to_text(*limit))};
  }
  if (wanted > pool.total) {
    return {false, true,
            cat("it wants ", to_text(wanted), "; ", pool.limit_name, " of ", pool.name, " is ", to_text(pool.total))};
  }
  if (limit && pool.held_for_purpose + wanted > *limit) {
    return {false, false,
            cat(purpose, " holds ", to_text(pool.held_for_purpose), " of its quota of ", to_text(*limit))};
  }
  if (wanted > pool.total - pool.used) {
    return {false, false,
            cat(pool.name, " has ", to_text(pool.total - pool.used), " of ", to_text(pool.total), " free (",
                pool.limit_name, "), ", to_text(wanted), " are wanted")};
  }
  return {true, false, ""};
}

}  // namespace lockstep::memory
