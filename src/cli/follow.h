#pragma once

// `lockstep events`: what the server's history has, and with --follow what happens from then on, across restarts of the
// server and lost connections: every durable event once, in rev order.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "http/client.h"

namespace lockstep::cli {

struct EventsOptions {
  std::string subject;
  std::string type;  // prefix
  std::string domain;
  std::string urgency;  // "p1": this urgent, or more
  std::string session;
  std::optional<std::uint64_t> since;  // rev
  std::optional<std::uint64_t> last;   // how many
  bool follow = false;
  bool json = false;
};

/// Gathers the events of a commit until they are whole. A stream that is cut in the middle of one begins it again.
class CommitGatherer {
 public:
  /// The events that are complete now: of a commit when its last one (which has the id) is there, another at once.
  std::vector<http::ServerSentEvent> add(http::ServerSentEvent event);
  /// The stream was cut.
  void cut() { open_.clear(); }

 private:
  std::uint64_t newest_ = 0;
  std::vector<http::ServerSentEvent> open_;
};

ExitCode events(const http::Address& address, const EventsOptions& options);

}  // namespace lockstep::cli
