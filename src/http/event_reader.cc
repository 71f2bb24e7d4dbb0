#include "http/event_reader.h"

#include <utility>

namespace lockstep::http {

void EventReader::add(std::string_view piece) {
  while (!piece.empty()) {
    const std::size_t end = piece.find('\n');
    if (end == std::string_view::npos) {
      rest_ += piece;
      return;
    }
    rest_ += piece.substr(0, end);
    if (rest_.ends_with('\r')) rest_.pop_back();
    line(rest_);
    rest_.clear();
    piece.remove_prefix(end + 1);
  }
}

void EventReader::line(std::string_view text) {
  if (text.empty()) {
    if (!data_seen_) event_.type.clear();  // no event without data, but its id counts
    if (data_seen_ || !event_.id.empty()) ready_.push_back(std::exchange(event_, {}));
    event_ = {};
    data_seen_ = false;
    return;
  }
  const std::size_t colon = text.find(':');
  const std::string_view field = text.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "id") event_.id = value;
  if (field == "event") event_.type = value;
  if (field == "data") {
    if (data_seen_) event_.data += '\n';
    event_.data += value;
    data_seen_ = true;
  }
}

std::optional<ServerSentEvent> EventReader::next() {
  while (!ready_.empty()) {
    ServerSentEvent event = std::move(ready_.front());
    ready_.pop_front();
    if (!event.id.empty()) last_id_ = event.id;
    if (!event.type.empty() || !event.data.empty()) return event;
  }
  return std::nullopt;
}

}  // namespace lockstep::http
