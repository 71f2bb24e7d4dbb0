#pragma once

// The text of an event stream, piece by piece, into events. Comments and retry hints are skipped.

#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "http/client.h"

namespace lockstep::http {

/// Pieces may end anywhere, in the middle of a line or of a character.
class EventReader {
 public:
  void add(std::string_view piece);
  std::optional<ServerSentEvent> next();
  /// The id to come back with: of the newest event that next() returned, or of a place that the server named after it.
  const std::string& last_id() const { return last_id_; }

 private:
  void line(std::string_view text);

  std::string rest_;  // a line that is not complete
  ServerSentEvent event_;
  bool data_seen_ = false;
  std::deque<ServerSentEvent> ready_;  // one without type and data is only a place
  std::string last_id_;
};

}  // namespace lockstep::http
