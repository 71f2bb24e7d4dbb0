#pragma once

// How the machine's RAM is used, as the kernel tells: /proc/meminfo, /proc/pressure/memory, and the control group of
// this process (version 2) where it has a limit. What the kernel does not give is absent.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace lockstep::real {

/// group_used  without the file cache, which the kernel takes back before it kills anybody
/// stall       0 to 1: of the last 10 s, the share in which every task waited for memory
struct MemoryReading {
  Bytes total;
  Bytes available;
  std::optional<Bytes> group_limit;
  Bytes group_used;
  double stall = 0;
};

/// root: "/", or a folder that looks like it, for tests. unavailable when /proc/meminfo cannot be read.
Result<MemoryReading> read_memory(const std::string& root = "/");

/// "MemAvailable:   123 kB" -> 123 KiB; nothing when the line is not there.
std::optional<Bytes> meminfo_line(std::string_view text, std::string_view name);

}  // namespace lockstep::real
