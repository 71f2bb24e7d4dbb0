#pragma once

// What the processes of a propagation benchmark stand on: placement, frames in large reads, frames in large writes, and
// a page that all of them see. Nothing here knows a message.

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "env/frame.h"

namespace lockstep::bench {

/// Nanoseconds of the clock that all processes share.
std::uint64_t now_ns();

/// This process runs on that processor only.
void pin(int cpu);

/// A connected pair of stream sockets.
struct Pair {
  int a = -1;
  int b = -1;
};
Pair socket_pair();

/// Runs `body` in a process of its own, placed on `cpu` (-1: anywhere), and ends it. -1 when there is no room for one.
pid_t in_process(int cpu, const std::function<void()>& body);
/// True when it ended with status 0.
bool wait_for(pid_t process);
/// The same for processes that work together, whichever ends first. Once one of them did not, or had not begun, the
/// others are killed: they may wait for it for ever.
bool wait_for_all(const std::vector<pid_t>& processes);

/// Sees every frame that arrives on one socket, without copying its body.
class FrameReader {
 public:
  struct View {
    FrameHeader header;
    std::string_view body;  // until the next call of fill()
  };
  explicit FrameReader(int socket);
  /// One read, waiting for the first byte. False at the end.
  bool fill();
  /// The next whole frame of what was read; nothing when more must be read first or the header is broken.
  std::optional<View> next();

 private:
  int socket_;
  std::string buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

/// All of it; false when the other side is gone.
bool write_all(int socket, std::string_view bytes);
bool read_all(int socket, char* bytes, std::size_t size);

/// Zeroed memory that forked processes share. Never given back: a benchmark ends.
void* shared_memory(std::size_t size);
template <class T>
T* shared(std::size_t count = 1) {
  return static_cast<T*>(shared_memory(sizeof(T) * count));
}

}  // namespace lockstep::bench
