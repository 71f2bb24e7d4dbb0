#include "http/event_feed.h"

#include <memory>
#include <utility>

#include <boost/mp11.hpp>

#include "base/text.h"
#include "http/shapes.h"

namespace lockstep::http {

namespace {

/// The revs after `since` up to `through` are gone from the history.
struct Compacted {
  Rev since;
  Rev through;
};
BOOST_DESCRIBE_STRUCT(Compacted, (), (since, through))

StreamBuffer::Text shared_text(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

Result<Domain> domain_named(const std::string& name) {
  std::optional<Domain> found;
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<Domain>>([&](auto each) {
    if (name == each.name) found = each.value;
  });
  if (found) return *found;
  return fail(ErrorCode::invalid_argument,
              cat("domain is \"", shortened(name),
                  "\"; it must be device, memory, model, processing, inference or postprocessing"),
              "/domain");
}

Result<Urgency> urgency_named(const std::string& name) {
  if (name.size() == 2 && name[0] == 'p' && name[1] >= '0' && name[1] <= '3') {
    return static_cast<Urgency>(name[1] - '0');
  }
  return fail(ErrorCode::invalid_argument,
              cat("urgency is \"", shortened(name), "\"; it must be p0, p1, p2 or p3: this urgent, or more"),
              "/urgency");
}

}  // namespace

Result<EventQuery> read_event_query(std::string_view query, std::optional<std::string_view> last_event_id, Rev newest) {
  const auto values = LOCKSTEP_TRY(query_values(query, {"subject", "type", "domain", "urgency", "session", "since",
                                                         "last", "follow"}));
  const auto value = [&](const char* key) -> std::optional<std::string> {
    const auto place = values.find(key);
    return place == values.end() ? std::nullopt : std::optional(place->second);
  };
  EventQuery out;
  out.subject = value("subject");
  out.type_prefix = value("type");
  out.session = value("session");
  if (const auto domain = value("domain")) out.domain = LOCKSTEP_TRY(domain_named(*domain));
  if (const auto urgency = value("urgency")) out.urgency = LOCKSTEP_TRY(urgency_named(*urgency));
  std::string where = "since";
  std::optional<std::string> since = value("since");
  // An empty one is what a browser has before the first id.
  if (last_event_id && !last_event_id->empty()) {
    where = "Last-Event-ID";
    since = std::string(*last_event_id);
  }
  if (since) {
    out.after = Rev{LOCKSTEP_TRY(whole_number(where, *since))};
    if (*out.after > newest) {
      return fail(ErrorCode::invalid_argument,
                  cat(where, " is ", out.after->value, "; the newest rev is ", newest.value), cat("/", where));
    }
  }
  if (const auto last = value("last")) {
    out.last = LOCKSTEP_TRY(whole_number("last", *last));
    if (value("since")) {
      return fail(ErrorCode::invalid_argument, "since and last name two different places to start; use one", "/last");
    }
  }
  if (const auto follow = value("follow")) {
    if (*follow != "true" && *follow != "false") {
      return fail(ErrorCode::invalid_argument, cat("follow is \"", shortened(*follow), "\"; it must be true or false"),
                  "/follow");
    }
    out.follow = *follow == "true";
  }
  return out;
}

EventFeed::EventFeed(const EventHistory& history, EventQuery query, std::size_t events_max)
    : history_(history), query_(std::move(query)), told_(history.newest()), buffer_(events_max) {
  if (query_.after) {
    told_ = *query_.after;
  } else if (query_.last) {
    start_at_last(*query_.last);
  } else if (!query_.follow) {
    told_ = history.floor();
  }
}

void EventFeed::start_at_last(std::size_t count) {
  if (count > 0) told_ = history_.floor();
  history_.backwards([&](const out::Publish& entry) {
    std::size_t here = 0;
    for (const CommitEvent& event : entry.events) here += wants(event) ? 1 : 0;
    if (here > count) {  // a commit is told whole or not at all
      told_ = entry.rev;
      return false;
    }
    count -= here;
    return true;
  });
}

std::string EventFeed::opening() const { return cat("retry: 2000\nid: ", told_.value, "\n\n"); }

bool EventFeed::wants(const CommitEvent& event) const {
  if (query_.subject && event.subject != *query_.subject) return false;
  if (query_.type_prefix && !event.type.starts_with(*query_.type_prefix)) return false;
  if (query_.session && event.subject != *query_.session && event.session != query_.session) return false;
  if (!query_.domain && !query_.urgency) return true;
  const EventFacts facts = event_facts(event.type, event.body.text);
  if (query_.domain && facts.domain != query_.domain) return false;
  return !query_.urgency || facts.urgency <= *query_.urgency;
}

bool EventFeed::wants_everything() const {
  return !query_.subject && !query_.type_prefix && !query_.domain && !query_.urgency && !query_.session;
}

std::string EventFeed::text_of(const out::Publish& what) const {
  std::vector<CommitEvent> mine;
  for (const CommitEvent& event : what.events) {
    if (wants(event)) mine.push_back(event);
  }
  return events_text(what.rev, what.time, mine);
}

bool EventFeed::publish(const out::Publish& what, const StreamBuffer::Text& everything) {
  if (!live_ || over_) return true;
  const StreamBuffer::Text text = wants_everything() ? everything : shared_text(text_of(what));
  if (text->empty() || buffer_.push(what.rev, what.events.size(), text)) return true;
  over_ = true;
  return false;
}

void EventFeed::take_history(std::size_t texts_max, WallTime now, std::vector<StreamBuffer::Text>& out) {
  while (out.size() < texts_max) {
    // The id of a note is the place behind it: a reader that is cut there need not hear of it again.
    const auto note = [&](std::string type, Rev place, RawJson body) {
      const CommitEvent event{std::move(type), "", std::move(body)};
      out.push_back(shared_text(cat("id: ", place.value, "\n", event_text(Rev{}, now, event))));
    };
    if (told_ < history_.floor()) {
      note("compacted", history_.floor(), RawJson{json::to_text(Compacted{told_, history_.floor()})});
      told_ = history_.floor();
      continue;
    }
    const EventHistory::Entry next = history_.after(told_);
    if (!next) {
      live_ = true;
      if (query_.follow) return;
      over_ = true;
      return note("history_end", history_.newest(), RawJson{"{}"});
    }
    told_ = next->rev;
    std::string text = text_of(*next);
    if (!text.empty()) out.push_back(shared_text(std::move(text)));
  }
}

std::vector<StreamBuffer::Text> EventFeed::take(std::size_t texts_max, WallTime now) {
  std::vector<StreamBuffer::Text> out;
  if (!live_ && !over_) take_history(texts_max, now, out);
  for (StreamBuffer::Text& each : buffer_.take(texts_max - out.size())) out.push_back(std::move(each));
  return out;
}

void EventFeed::finish_with(std::string text) {
  over_ = true;
  buffer_.push(Rev{1}, 0, shared_text(std::move(text)));
}

std::optional<std::string> EventFeed::keep_alive() const {
  if (!live_ || over_ || !buffer_.empty()) return std::nullopt;
  return cat(": keep-alive\nid: ", history_.newest().value, "\n\n");
}

}  // namespace lockstep::http
