#pragma once

// The answers of the server, told to people or to programs: one way for every sub-command.

#include <string>

#include "base/text.h"
#include "cli/exit_code.h"
#include "events/json_read.h"
#include "http/client.h"

namespace lockstep::cli {

inline constexpr json::Limits view_limits{.size_max = 64u << 20, .depth_max = 40};

/// To stdout, at once.
void print(const std::string& text);

/// The view that an answer holds; internal when this program does not understand it.
template <class View>
Result<View> view_in(const http::Response& response) {
  auto view = json::from_text<View>(response.body, nullptr, view_limits);
  if (view) return view;
  return fail(ErrorCode::internal,
              cat("this program does not understand the server's answer: ", view.error().message, "; --json shows it"));
}

/// Prints the answer as it is for programs, else what `words` makes of the view. Any status but the expected one is the
/// server's error.
template <class View, class Words>
ExitCode tell_view(const Result<http::Response>& response, int status, bool as_json, Words words) {
  if (!response) return tell(response.error());
  if (response->status != status) return tell(http::error_from(*response));
  if (as_json) {
    print(response->body + "\n");
    return ExitCode::done;
  }
  const auto view = view_in<View>(*response);
  if (!view) return tell(view.error());
  print(words(*view));
  return ExitCode::done;
}

}  // namespace lockstep::cli
