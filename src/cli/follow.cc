#include "cli/follow.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "base/text.h"
#include "cli/progress.h"
#include "cli/show.h"
#include "events/json_read.h"
#include "http/shapes.h"

namespace lockstep::cli {

namespace {

constexpr json::Limits event_limits{.size_max = 64u << 20, .depth_max = 40};
constexpr int look_every_ms = 60'000;
constexpr int try_again_ms = 500;
constexpr std::uint64_t last_default = 100;

/// Every byte that is not plainly part of a name.
std::string percent_encoded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (is_plain_name(std::string("x") + c)) {
      out += c;
    } else {
      const auto byte = static_cast<std::uint8_t>(c);
      out += "%" + to_hex({&byte, 1});
    }
  }
  return out;
}

std::string target_of(const EventsOptions& options) {
  std::string target = cat("/api/v1/events?follow=", options.follow ? "true" : "false");
  if (!options.subject.empty()) target += cat("&subject=", percent_encoded(options.subject));
  if (!options.type.empty()) target += cat("&type=", percent_encoded(options.type));
  if (!options.domain.empty()) target += cat("&domain=", percent_encoded(options.domain));
  if (!options.urgency.empty()) target += cat("&urgency=", percent_encoded(options.urgency));
  if (!options.session.empty()) target += cat("&session=", percent_encoded(options.session));
  if (options.since) {
    target += cat("&since=", *options.since);
  } else {
    target += cat("&last=", options.last.value_or(last_default));
  }
  return target;
}

void say(const std::string& words) { std::fputs(cat("lockstep: ", harmless(words), "\n").c_str(), stderr); }

void print(const http::ServerSentEvent& event, bool as_json, std::size_t width) {
  const auto line = json::from_text<http::EventLine>(event.data, nullptr, event_limits);
  const std::string text = (as_json || !line ? event.data : text_of(*line, width)) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

/// One stream until it ends: well when the history was asked for and is told, else with the reason.
Status read_stream(http::EventStream& stream, const EventsOptions& options, CommitGatherer& gatherer) {
  // Whole lines for a pipe, one row an event for a person.
  const std::size_t width = ::isatty(STDOUT_FILENO) != 0 ? stderr_screen().width : std::string::npos;
  while (true) {
    const auto next = stream.next(look_every_ms);
    if (!next) return next.error();
    if (!*next) continue;
    if ((*next)->type == "resync_required") {
      return fail(ErrorCode::unavailable, "this reader was too slow for the stream");
    }
    if ((*next)->type == "history_end") return {};
    if ((*next)->type == "compacted") say("events are missing here: they are older than the server's history");
    for (const http::ServerSentEvent& event : gatherer.add(**next)) print(event, options.json, width);
    std::fflush(stdout);  // an event belongs to the reader of a pipe now, not when a buffer is full
  }
}

}  // namespace

std::vector<http::ServerSentEvent> CommitGatherer::add(http::ServerSentEvent event) {
  // Progress and notes have no rev and belong to no commit.
  const auto line = json::from_text<http::EventLine>(event.data, nullptr, event_limits);
  if (!line || !line->rev) return {std::move(event)};
  if (line->rev->value <= newest_) return {};  // told already
  const bool whole = !event.id.empty();
  if (whole) newest_ = line->rev->value;
  open_.push_back(std::move(event));
  return whole ? std::exchange(open_, {}) : std::vector<http::ServerSentEvent>{};
}

ExitCode events(const http::Address& address, const EventsOptions& options) {
  const std::string target = target_of(options);
  CommitGatherer gatherer;
  std::map<std::string, std::string> headers;
  bool away = false;
  for (bool first = true;; first = false) {
    auto stream = http::EventStream::open(address, target, headers);
    if (stream) {
      if (std::exchange(away, false)) say("the server is back");
      const Status end = read_stream(**stream, options, gatherer);
      if (end) return ExitCode::done;
      if (!options.follow) return tell(end.error());
      gatherer.cut();
      if (const std::string id = (*stream)->last_id(); !id.empty()) headers["Last-Event-ID"] = id;
      const auto place = headers.find("Last-Event-ID");
      say(cat(end.error().message, "; following again ",
              place == headers.end() ? "from the beginning" : cat("from rev ", place->second)));
    } else if (first || stream.error().code != ErrorCode::unavailable) {
      return tell(stream.error());
    } else if (!std::exchange(away, true)) {
      say("the server is away; waiting for it (Ctrl-C ends this)");
    }
    ::poll(nullptr, 0, try_again_ms);
  }
}

}  // namespace lockstep::cli
