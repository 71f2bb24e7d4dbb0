#pragma once

// What one slow reader of the event stream has not taken yet, bounded. Progress is given up first, because a newer
// one replaces it; when durable events do not fit either, the reader has missed something and must list again.

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"

namespace lockstep::http {

/// Invariant: waiting() <= events_max.
class StreamBuffer {
 public:
  using Text = std::shared_ptr<const std::string>;

  explicit StreamBuffer(std::size_t events_max) : events_max_(events_max) {}

  /// One publish of `events` events as one text. False: it does not fit although no progress is left to drop; the
  /// buffer is empty then and the stream has to end.
  bool push(Rev rev, std::size_t events, Text text);
  /// The oldest texts, at most `texts_max`.
  std::vector<Text> take(std::size_t texts_max);

  bool empty() const { return pieces_.empty(); }
  std::size_t waiting() const { return waiting_; }

 private:
  struct Piece {
    bool progress;
    std::size_t events;
    Text text;
  };
  std::size_t events_max_;
  std::size_t waiting_ = 0;
  std::deque<Piece> pieces_;
};

}  // namespace lockstep::http
