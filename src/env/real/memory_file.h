#pragma once

// Anonymous shared memory that travels by descriptor: model segments and pixels. Fill, unmap, seal, hand out: from
// then on nobody can change it, not even its maker.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"
#include "env/real/fd.h"

namespace lockstep::real {

/// A memfd of `size` bytes, filled by `fill` through a private writable mapping, then sealed against writing, growing
/// and shrinking. `name` shows in /proc/PID/maps as /memfd:<name>. resource_exhausted when memory is short.
Result<Fd> make_sealed(const std::string& name, Bytes size, const std::function<Status(std::span<std::uint8_t>)>& fill);

/// A memory file that one thread fills while others hold it already: they wait_sealed() before they look.
struct FillingFile {
  Fd filler;  // its end, by finish_filling or not, wakes who waits
  Fd reader;
};
/// resource_exhausted when memory is short.
Result<FillingFile> begin_filling(const std::string& name, Bytes size);
/// Everything was written: nobody can change it from now on.
Status finish_filling(int filler);
/// Waits until the filler is done; at once for a file that is sealed. data_loss when it gave up. Any thread.
Status wait_sealed(int reader);

/// Size of the file behind a descriptor.
Result<Bytes> size_of(int fd);

/// What the kernel says this very memory file is: equal for two descriptors of one memfd, and for no others for as long
/// as the machine runs. Empty when the descriptor is not a sealed memfd. The time keeps a reused number apart.
std::string identity_of(int fd);

/// What a process of somebody else's may have us read at once: an image of the largest size that is configurable, as
/// raw pixels, has less. A file of holes may promise any length and cost its maker nothing.
inline constexpr Bytes read_max{1ULL << 30};

/// The bytes of a descriptor that somebody else made, as a private copy. data_loss when it can still be changed, or
/// when length or digest differ from what was promised; too_large over read_max, before anything is allocated.
Result<std::string> read_verified(int fd, std::uint64_t bytes, std::string_view sha256);

}  // namespace lockstep::real
