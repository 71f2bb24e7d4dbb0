#pragma once

// Identity of bytes: SHA-256 for what users compare, CRC-32C for journal rows.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lockstep {

/// SHA-256 in pieces. One use: after hex() the object is spent.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::span<const std::uint8_t> bytes);
  void add(std::string_view text);
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 64 lower-case hex digits.
std::string sha256_hex(std::string_view bytes);
bool is_sha256_hex(std::string_view text);

/// CRC-32C of `bytes` continued from `previous`, so that a chain of rows detects a missing one.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t previous = 0);

}  // namespace lockstep
