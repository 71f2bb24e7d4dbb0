#pragma once

// Ids and tokens that nobody can guess.

#include <array>
#include <cstdint>
#include <string>

#include <openssl/rand.h>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::server {

/// 128 bits as 32 hex digits.
inline std::string random_id() {
  std::array<std::uint8_t, 16> bytes;
  LOCKSTEP_CHECK(::RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) == 1);
  return to_hex(bytes);
}

}  // namespace lockstep::server
