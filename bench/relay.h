#pragma once

// An event's way worker -> orchestrator -> other workers, from the rooms that the server uses: the frame header, the
// codec, the ownership table. Each end of a link holds its own memory and uses it again.

#include <map>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"
#include "bench/wire.h"
#include "events/envelope.h"
#include "events/inference_events.h"

namespace lockstep::bench {

inline constexpr Epoch bench_epoch{1};

/// A worker that tells of its inference: one event of about 300 bytes after the other.
class Teller {
 public:
  Teller(Form form, Incarnation incarnation);
  /// Appends the next frame.
  void append(std::string& out, Urgency urgency = Urgency::p3_low);

 private:
  Form form_;
  Envelope envelope_;
  InferenceProgress event_;
  std::string body_;
};

/// Reads, checks and counts events at the end of a link, in both places where that is done.
class Listener {
 public:
  /// from   who must have sent it: a worker's frame at the orchestrator, the orchestrator's at a worker
  Listener(Form form, Side from, Incarnation incarnation);
  /// The whole event, valid and in sequence, or why not. event() and envelope() hold it until the next.
  Status take(const FrameReader::View& frame);

  Envelope& envelope() { return envelope_; }
  const Envelope& envelope() const { return envelope_; }
  const InferenceProgress& event() const { return event_; }
  /// The bytes of the message itself, as they came.
  std::string_view message() const { return message_; }

 private:
  Form form_;
  Side from_;
  Incarnation incarnation_;
  std::uint64_t sequence_ = 0;
  Envelope envelope_;
  InferenceProgress event_;
  Frame frame_;  // of a JSON link: what from_frame reads
  std::string_view message_;
};

/// The orchestrator in between: owner and rules, then one frame for each subscriber.
class Relay {
 public:
  Relay(Form form, Incarnation teller, std::size_t subscribers);
  /// Appends a frame to each of `out` (one for each subscriber). not_owner, invalid_argument: nothing was appended.
  Status pass_on(const FrameReader::View& frame, std::vector<std::string>& out);
  const Listener& listener() const { return from_teller_; }

 private:
  Form form_;
  Listener from_teller_;
  std::map<std::string, WorkerId, std::less<>> runs_;  // whose run is whose
  std::vector<std::uint64_t> sequences_;
  std::string body_;
};

}  // namespace lockstep::bench
