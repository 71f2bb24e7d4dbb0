#pragma once

// Counts calls of operator new. The replacement below stands in the program as a whole: it is malloc and one addition.

#include <cstdint>

namespace lockstep::bench {

/// How often the calling thread has allocated so far. Under a sanitizer, which has an operator new of its own: always
/// 0.
std::uint64_t allocations();

}  // namespace lockstep::bench
