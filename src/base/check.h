#pragma once

// A wrong program stops. LOCKSTEP_CHECK guards what only a defect can break; it stays on in release builds.
// What a worker, a disk, a network or a user can cause is a Result instead (base/result.h).

#include <cstdio>
#include <cstdlib>

namespace lockstep {

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "lockstep: check failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace lockstep

#define LOCKSTEP_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::lockstep::check_failed(#condition, __FILE__, __LINE__))
