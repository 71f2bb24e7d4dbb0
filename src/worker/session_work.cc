#include "worker/session_work.h"

#include <algorithm>
#include <utility>

namespace lockstep::worker {

void SessionWork::created(const ProcessingSessionCreated& message, WallTime now) {
  Work& work = sessions_.try_emplace(message.session_id, Work{.since = now}).first->second;
  work.expected = message.expected_operations;
}

bool SessionWork::command(const SessionControlCommand& message) {
  const auto place = sessions_.find(message.session_id);
  if (place == sessions_.end()) return false;
  if (message.command == SessionCommand::cancel_operations) {
    sessions_.erase(place);
    return true;
  }
  place->second.paused = message.command == SessionCommand::pause_operations;
  return true;
}

void SessionWork::running(const std::string& session, std::string operation) {
  const auto place = sessions_.find(session);
  if (place != sessions_.end()) place->second.running = std::move(operation);
}

void SessionWork::done(const std::string& session, std::uint32_t operations) {
  const auto place = sessions_.find(session);
  if (place == sessions_.end()) return;
  place->second.done += operations;
  place->second.running.clear();
}

std::optional<SessionProgressUpdate> SessionWork::report(const std::string& session, WallTime now, Bytes memory_used,
                                                         Percent utilization) const {
  const auto place = sessions_.find(session);
  if (place == sessions_.end()) return std::nullopt;
  const Work& work = place->second;
  const std::uint32_t remaining = work.expected - std::min(work.done, work.expected);
  // Without a first operation nothing can be said of the rest: now.
  const double each = work.done == 0 ? 0 : static_cast<double>(now.ms - work.since.ms) / work.done;
  const WallTime end{now.ms + static_cast<std::int64_t>(each * remaining)};
  std::string current = work.running;
  if (current.empty()) current = work.paused ? "paused" : "idle";
  return SessionProgressUpdate{
      session, {work.done, remaining, Timestamp::of(end)}, current, {SizeText::of(memory_used), utilization}};
}

}  // namespace lockstep::worker
