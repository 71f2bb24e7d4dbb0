#pragma once

// `lockstep sessions create|list|show|pause|resume|complete|cancel`: what holds requests together (§1.4).

#include <optional>
#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/sessions.h"

namespace lockstep::cli {

std::string text_of(const SessionsView& view);
std::string text_of(const SessionView& view);

/// The words of one command as they were typed.
struct SessionOptions {
  std::string session_class;
  std::string priority;
  std::string max_memory;
  std::vector<std::string> devices;
  std::string operation_timeout;
  std::string session_timeout;
  std::optional<std::uint32_t> expected_operations;
  std::vector<std::string> depends_on;
  std::string reason;
  std::string resume_condition;
};

ExitCode create_session(const http::Address& address, const SessionOptions& options, bool as_json);
ExitCode list_sessions(const http::Address& address, bool as_json);
ExitCode show_session(const http::Address& address, const std::string& id, bool as_json);
/// word   "pause", "resume", "complete" or "cancel"
ExitCode command_session(const http::Address& address, const std::string& id, const std::string& word,
                         const SessionOptions& options, bool as_json);

}  // namespace lockstep::cli
