#include "http/event_history.h"

#include <algorithm>

#include "base/check.h"

namespace lockstep::http {

namespace {

std::size_t bytes_of(const out::Publish& entry) {
  std::size_t bytes = 0;
  for (const CommitEvent& event : entry.events) {
    bytes += sizeof event + event.type.size() + event.subject.size() + event.body.text.size() +
             event.session.value_or("").size();
  }
  return bytes;
}

}  // namespace

void EventHistory::begin_after(Rev floor) {
  entries_.clear();
  events_ = 0;
  bytes_ = 0;
  floor_ = newest_ = floor;
}

void EventHistory::add(Entry entry) {
  LOCKSTEP_CHECK(entry->rev > newest_);
  newest_ = entry->rev;
  events_ += entry->events.size();
  bytes_ += bytes_of(*entry);
  entries_.push_back(std::move(entry));
  while (events_ > settings_.events_max || bytes_ > settings_.bytes_max) {
    const Entry& oldest = entries_.front();
    floor_ = oldest->rev;
    events_ -= oldest->events.size();
    bytes_ -= bytes_of(*oldest);
    entries_.pop_front();
  }
}

EventHistory::Entry EventHistory::after(Rev rev) const {
  const auto place = std::ranges::upper_bound(entries_, rev, {}, [](const Entry& each) { return each->rev; });
  return place == entries_.end() ? nullptr : *place;
}

}  // namespace lockstep::http
