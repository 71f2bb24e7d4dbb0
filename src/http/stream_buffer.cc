#include "http/stream_buffer.h"

#include <algorithm>
#include <utility>

namespace lockstep::http {

bool StreamBuffer::push(Rev rev, std::size_t events, Text text) {
  pieces_.push_back({rev.value == 0, events, std::move(text)});
  waiting_ += events;
  while (waiting_ > events_max_) {
    const auto oldest = std::ranges::find_if(pieces_, [](const Piece& each) { return each.progress; });
    if (oldest == pieces_.end()) {
      pieces_.clear();
      waiting_ = 0;
      return false;
    }
    waiting_ -= oldest->events;
    pieces_.erase(oldest);
  }
  return true;
}

std::vector<StreamBuffer::Text> StreamBuffer::take(std::size_t texts_max) {
  std::vector<Text> out;
  while (!pieces_.empty() && out.size() < texts_max) {
    waiting_ -= pieces_.front().events;
    out.push_back(std::move(pieces_.front().text));
    pieces_.pop_front();
  }
  return out;
}

}  // namespace lockstep::http
