#pragma once

// The least that reading a journal takes: SQLite gives every row of its file, and nobody looks at it.

#include <cstdint>
#include <string>

#include "base/result.h"

namespace lockstep::bench {

/// The bytes of all bodies and values in the journal `file`.
Result<std::uint64_t> read_plainly(const std::string& file);

}  // namespace lockstep::bench
