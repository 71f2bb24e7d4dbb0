#pragma once

// `lockstep workers list|show|restart|logs`: which worker processes there are, why one is set aside, and what it wrote.

#include <cstddef>
#include <string>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/views.h"

namespace lockstep::cli {

struct LogOptions {
  std::size_t lines = 100;
  bool follow = false;
};

std::string text_of(const WorkersView& view);
std::string text_of(const WorkerView& view);

/// Each takes the id of a worker as it was typed.
ExitCode list_workers(const http::Address& address, bool as_json);
ExitCode show_worker(const http::Address& address, const std::string& id, bool as_json);
ExitCode restart_worker(const http::Address& address, const std::string& id, bool as_json);
/// The log's text as it is; for a terminal without what the terminal would obey. With follow until Ctrl-C.
ExitCode worker_logs(const http::Address& address, const std::string& id, const LogOptions& options);

}  // namespace lockstep::cli
