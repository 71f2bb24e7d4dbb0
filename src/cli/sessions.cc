#include "cli/sessions.h"

#include <cmath>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/show.h"
#include "events/json_read.h"

namespace lockstep::cli {

namespace {

Status check_id(const std::string& id) {
  if (is_plain_name(id)) return {};
  return fail(ErrorCode::not_found, cat("there is no session ", shortened(harmless(id))));
}

template <class View>
ExitCode show(const Result<http::Response>& response, int status, bool as_json) {
  return tell_view<View>(response, status, as_json, [](const View& view) { return text_of(view); });
}

std::string progress_text(const SessionView& view) {
  const std::uint32_t all = view.operations_completed + view.operations_remaining;
  return cat(view.operations_completed, "/", all, " (", std::lround(view.percent), " %)");
}

/// Words go to the server as they were typed; it knows which there are.
void add(std::string& body, std::string_view key, const std::string& text) {
  if (text.empty()) return;
  body += cat(body.size() > 1 ? "," : "", json::to_text(std::string(key)), ":", json::to_text(text));
}
void add(std::string& body, std::string_view key, const std::vector<std::string>& list) {
  if (list.empty()) return;
  body += cat(body.size() > 1 ? "," : "", json::to_text(std::string(key)), ":", json::to_text(list));
}

}  // namespace

std::string text_of(const SessionsView& view) {
  std::vector<Row> rows{{"SESSION", "STATE", "CLASS", "PRIORITY", "OPERATIONS", "REQUESTS", "WAITS FOR"}};
  for (const SessionView& each : view.sessions) {
    const processing::Session& session = each.session;
    rows.push_back({harmless(session.session_id), json::enum_name(session.state),
                    json::enum_name(session.session_class), json::enum_name(session.priority), progress_text(each),
                    cat(session.requests.size()), harmless(each.waits_for)});
  }
  return view.sessions.empty() ? "no sessions\n" : table_text(rows);
}

std::string text_of(const SessionView& view) {
  const processing::Session& session = view.session;
  std::string out = cat(harmless(session.session_id), ": ", json::enum_name(session.state), ", ",
                        json::enum_name(session.session_class), ", priority ", json::enum_name(session.priority), "\n");
  out += cat("operations: ", progress_text(view), "\n");
  if (!view.estimated_completion.empty()) out += cat("done at about: ", harmless(view.estimated_completion), "\n");
  if (!view.waits_for.empty()) out += cat("waits: ", harmless(view.waits_for), "\n");
  if (session.max_memory) out += cat("max memory: ", harmless(session.max_memory->text), "\n");
  if (session.operation_timeout) out += cat("operation timeout: ", harmless(session.operation_timeout->text), "\n");
  if (session.session_timeout) out += cat("session timeout: ", harmless(session.session_timeout->text), "\n");
  for (const DeviceId& each : session.gpu_allocation) out += cat("device: ", harmless(each.str()), "\n");
  for (const std::string& each : session.depends_on) out += cat("depends on: ", harmless(each), "\n");
  for (const RequestId& each : session.requests) out += cat("request: ", harmless(each.str()), "\n");
  for (const SessionReport& each : view.workers) {
    out += cat(harmless(each.worker_id.str()), ": ", each.update.progress_metrics.operations_completed,
               " operations done, ", harmless(each.update.current_operation), ", ",
               harmless(each.update.resource_usage.memory_used.text), " used\n");
  }
  if (session.failure) out += cat("why: ", harmless(session.failure->message), "\n");
  return out;
}

ExitCode create_session(const http::Address& address, const SessionOptions& options, bool as_json) {
  std::string body = "{";
  add(body, "session_class", options.session_class);
  add(body, "priority", options.priority);
  add(body, "max_memory", options.max_memory);
  add(body, "gpu_allocation", options.devices);
  add(body, "operation_timeout", options.operation_timeout);
  add(body, "session_timeout", options.session_timeout);
  add(body, "depends_on", options.depends_on);
  if (options.expected_operations) {
    body += cat(body.size() > 1 ? "," : "", "\"expected_operations\":", *options.expected_operations);
  }
  return show<SessionView>(http::request(address, "POST", "/api/v1/sessions", body + "}"), 201, as_json);
}

ExitCode list_sessions(const http::Address& address, bool as_json) {
  return show<SessionsView>(http::request(address, "GET", "/api/v1/sessions"), 200, as_json);
}

ExitCode show_session(const http::Address& address, const std::string& id, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  return show<SessionView>(http::request(address, "GET", cat("/api/v1/sessions/", id)), 200, as_json);
}

ExitCode command_session(const http::Address& address, const std::string& id, const std::string& word,
                         const SessionOptions& options, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  std::string body = "{";
  add(body, "reason", options.reason);
  add(body, "resume_condition", options.resume_condition);
  return show<SessionView>(http::request(address, "POST", cat("/api/v1/sessions/", id, "/", word), body + "}"), 200,
                           as_json);
}

}  // namespace lockstep::cli
