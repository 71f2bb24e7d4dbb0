#include "cli/workers.h"

#include <poll.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/show.h"
#include "events/json_read.h"

namespace lockstep::cli {

namespace {

constexpr int look_every_ms = 500;

Status check_id(const std::string& id) {
  if (is_plain_name(id)) return {};
  return fail(ErrorCode::not_found, cat("there is no worker ", shortened(id)));
}

template <class View>
ExitCode show(const http::Address& address, const std::string& target, bool as_json) {
  return tell_view<View>(http::request(address, "GET", target), 200, as_json,
                         [](const View& view) { return text_of(view); });
}

/// What goes to a terminal: no control characters but the ends of lines.
std::string for_terminal(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    out += harmless(text.substr(0, end));
    if (end == std::string_view::npos) break;
    out += '\n';
    text.remove_prefix(end + 1);
  }
  return out;
}

std::string start_text(const WorkerView& worker) {
  if (!worker.next_start_seconds) return "";
  return cat("in ", static_cast<std::int64_t>(std::ceil(*worker.next_start_seconds)), " s");
}

}  // namespace

std::string text_of(const WorkersView& view) {
  if (view.workers.empty()) return "no workers\n";
  std::vector<Row> rows{{"WORKER", "STATE", "PID", "DEVICE", "INCARNATION", "TASK", "NEXT START", "WHY"}};
  const auto or_dash = [](std::string text) { return text.empty() ? std::string("-") : text; };
  for (const WorkerView& each : view.workers) {
    const bool away = each.state == "gone" || each.state == "broken";
    const std::string why = each.broken_because.empty() ? (away ? each.last_end : "") : each.broken_because;
    rows.push_back({each.worker_id.str(), each.state, each.pid == 0 ? "-" : cat(each.pid), each.device_id.str(),
                    cat(each.incarnation.value), or_dash(each.task), or_dash(start_text(each)),
                    or_dash(shortened(why, 120))});
  }
  return table_text(rows);
}

std::string text_of(const WorkerView& view) {
  std::string out = cat(view.worker_id.str(), "  ", view.state, "\n");
  out += cat("device ", view.device_id.str(), ", incarnation ", view.incarnation.value);
  if (view.pid != 0) out += cat(", process ", view.pid);
  if (view.event_form == "packed") out += ", packed events";
  out += "\n";
  if (!view.task.empty()) out += cat("task: ", harmless(view.task), "\n");
  if (!view.last_end.empty()) out += cat("the incarnation before ended: ", harmless(view.last_end), "\n");
  if (view.deaths_in_a_row > 0) out += cat("deaths since it was last ready: ", view.deaths_in_a_row, "\n");
  if (view.frames_refused > 0) out += cat("frames refused: ", view.frames_refused, "\n");
  for (const auto& [fact, times] : view.writes_refused) out += cat("told of ", fact, ", not its own: ", times, "\n");
  for (const auto& [event, times] : view.events_not_yet) out += cat(event, ", without effect so far: ", times, "\n");
  if (!view.broken_because.empty()) out += cat("set aside: ", harmless(view.broken_because), "\n");
  if (view.next_start_seconds) out += cat("next start: ", start_text(view), "\n");
  if (!view.last_words.empty()) out += cat("its last words:\n", for_terminal(view.last_words), "\n");
  if (!view.broken_because.empty()) {
    out += cat("start it now: lockstep workers restart ", view.worker_id.str(), "\n");
  }
  return out;
}

ExitCode list_workers(const http::Address& address, bool as_json) {
  return show<WorkersView>(address, "/api/v1/workers", as_json);
}

ExitCode show_worker(const http::Address& address, const std::string& id, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  return show<WorkerView>(address, cat("/api/v1/workers/", id), as_json);
}

ExitCode restart_worker(const http::Address& address, const std::string& id, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  const auto response = http::request(address, "POST", cat("/api/v1/workers/", id, "/restart"));
  if (!response) return tell(response.error());
  if (response->status != 202) return tell(http::error_from(*response));
  print(as_json ? response->body + "\n" : cat(id, " is being started\n"));
  return ExitCode::done;
}

ExitCode worker_logs(const http::Address& address, const std::string& id, const LogOptions& options) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  std::string query = cat("lines=", options.lines);
  bool away = false;
  for (bool first = true;; first = false) {
    const auto response = http::request(address, "GET", cat("/api/v1/workers/", id, "/logs?", query));
    if (response && response->status == 200) {
      if (std::exchange(away, false)) std::fputs("lockstep: the server is back\n", stderr);
      print(terminal ? for_terminal(response->body) : response->body);
      if (!options.follow) return ExitCode::done;
      const auto end = response->headers.find("lockstep-log-end");
      if (end == response->headers.end() || !is_plain_name(end->second)) {
        return tell(fail(ErrorCode::internal, "the server did not say where the log ends; is it of another version?"));
      }
      query = cat("after=", end->second);
      if (!response->body.empty() && !first) continue;  // there may be more at once
    } else {
      const Error error = response ? http::error_from(*response) : response.error();
      if (first || error.code != ErrorCode::unavailable) return tell(error);
      if (!std::exchange(away, true)) std::fputs("lockstep: the server is away; waiting for it\n", stderr);
    }
    ::poll(nullptr, 0, look_every_ms);
  }
}

}  // namespace lockstep::cli
