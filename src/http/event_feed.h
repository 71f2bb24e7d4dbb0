#pragma once

// What one reader of the event stream still has to get, as texts in the order to be sent: first what the history has
// after the reader's place, then what is published. No socket; server.cc writes the texts. docs/formats/http_api.md.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/event_history.h"
#include "http/stream_buffer.h"
#include "propagation/event_facts.h"

namespace lockstep::http {

/// What a reader asks for. Where it starts: `after` a rev, or at the `last` events, or (neither) at the present when
/// it follows and at the oldest there is when not.
struct EventQuery {
  std::optional<std::string> subject;      // equal
  std::optional<std::string> type_prefix;  // "inference_"
  std::optional<Domain> domain;
  std::optional<Urgency> urgency;      // this urgent, or more
  std::optional<std::string> session;  // whose work it tells of, or it is the subject
  std::optional<Rev> after;
  std::optional<std::size_t> last;
  bool follow = true;  // false: the stream ends when the history is told
};

/// query            of the target: subject, type, domain, urgency, session, since, last, follow
/// last_event_id    the header of a reader that comes back; it goes over `since`, which its URL may still carry
/// newest           the newest rev there is
/// returns          or invalid_argument with key and value: unknown key, no number, a rev that is still to come
Result<EventQuery> read_event_query(std::string_view query, std::optional<std::string_view> last_event_id, Rev newest);

/// Invariant: every durable event that the query asks for is taken once and in rev order, or take() has told of a gap
/// (`compacted`), or publish() has returned false.
class EventFeed {
 public:
  EventFeed(const EventHistory& history, EventQuery query, std::size_t events_max);

  /// What is sent first: how soon to come back, and the place to come back to.
  std::string opening() const;
  /// What was just published; `everything` is its text without a filter. While the history is still being told, a
  /// durable event is told in its turn and progress is dropped. False: the reader is too slow and the feed is over.
  bool publish(const out::Publish& what, const StreamBuffer::Text& everything);
  /// The next texts, at most `texts_max`.
  std::vector<StreamBuffer::Text> take(std::size_t texts_max, WallTime now);
  /// One more text after everything else, and then nothing.
  void finish_with(std::string text);
  /// What shows that the stream lives, and moves the reader's place over events that the query left out; nothing while
  /// there is something to take.
  std::optional<std::string> keep_alive() const;
  /// Nothing comes any more once take() returned nothing.
  bool over() const { return over_; }

 private:
  std::string text_of(const out::Publish& what) const;
  bool wants(const CommitEvent& event) const;
  bool wants_everything() const;
  void start_at_last(std::size_t count);
  void take_history(std::size_t texts_max, WallTime now, std::vector<StreamBuffer::Text>& out);

  const EventHistory& history_;
  EventQuery query_;
  Rev told_;           // of the history; meaningful until live_
  bool live_ = false;  // the history is told: what is published goes to buffer_
  bool over_ = false;
  StreamBuffer buffer_;
};

}  // namespace lockstep::http
