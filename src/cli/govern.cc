#include "cli/govern.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/show.h"
#include "domains/memory/history.h"
#include "events/json_read.h"

namespace lockstep::cli {

namespace {

bool is_number(std::string_view text) {
  return !text.empty() && text.size() <= 18 && text.find_first_not_of("0123456789.") == std::string_view::npos &&
         text.find_first_of("0123456789") == 0 && text.find('.') == text.rfind('.') && text.back() != '.';
}

/// The parts of an object or a list, each with its name (a list's have none); nothing of any other value.
std::optional<std::vector<std::pair<std::string, std::string>>> items_of(const std::string& json) {
  std::vector<std::pair<std::string, std::string>> out;
  json::Reader in(json, view_limits);
  RawJson value;
  if (json.starts_with('{')) {
    std::string_view key;
    if (!in.open_object()) return std::nullopt;
    while (in.next_key(key)) {
      std::string name(key);
      if (!json::read(in, value)) return std::nullopt;
      out.emplace_back(std::move(name), value.text);
    }
    return out;
  }
  if (!json.starts_with('[') || !in.open_array()) return std::nullopt;
  while (in.next_element()) {
    if (!json::read(in, value)) return std::nullopt;
    out.emplace_back("", value.text);
  }
  return out;
}

ExitCode shown(const Result<http::Response>& response, bool as_json) {
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  print(as_json ? response->body + "\n" : outline_of(response->body));
  return ExitCode::done;
}

std::string text_of(const memory::UsageReport& report) {
  if (report.pools.empty()) return "nothing was measured yet\n";
  std::string out;
  const auto line = [&](std::string_view name, const memory::UsedSpan& span) {
    out += cat("  ", name, " (", span.minutes, " min): held ", to_text(span.held_mean), " on average, ",
               to_text(span.held_p95), " in 95 of 100 minutes, ", to_text(span.held_max), " at most");
    if (span.used_share_max) out += cat("; used to ", static_cast<int>(span.used_share_max->value * 100), " % at most");
    for (const auto& [level, minutes] : span.pressed)
      out += cat("; ", harmless(level), " pressure in ", minutes, " min");
    out += "\n";
  };
  for (const memory::PoolUse& pool : report.pools) {
    out += cat(harmless(pool.pool), "\n");
    line("hour", pool.hour);
    line("day", pool.day);
  }
  return out;
}

}  // namespace

std::string outline_of(const std::string& json, std::size_t indent) {
  const auto items = items_of(json);
  if (!items) return harmless(json) + "\n";
  std::string out;
  for (const auto& [name, value] : *items) {
    const std::string lead = cat(std::string(indent, ' '), name.empty() ? "-" : cat(harmless(name), ":"));
    const auto inner = items_of(value);
    if (!inner) {
      out += cat(lead, " ", harmless(value), "\n");
    } else if (inner->empty()) {
      out += cat(lead, " none\n");
    } else if (name.empty()) {  // its first line stands beside the dash
      out += cat(lead, outline_of(value, indent + 2).substr(indent + 1));
    } else {
      out += cat(lead, "\n", outline_of(value, indent + 2));
    }
  }
  return out;
}

std::string text_of(const DevicesView& view) {
  if (view.devices.empty()) return "no devices\n";
  std::vector<Row> rows{{"DEVICE", "KIND", "STATE", "HEALTH", "WORKER", "ALLOCATED", "BUDGET", "WHY"}};
  for (const DeviceView& each : view.devices) {
    rows.push_back({each.device_id.str(), each.kind, each.availability, each.health_level, each.worker_id.str(),
                    to_text(each.memory_allocated), to_text(each.memory_budget),
                    each.reason.empty() ? "-" : harmless(shortened(each.reason, 120))});
  }
  return table_text(rows);
}

Result<std::string> object_of(const std::vector<std::string>& words, const std::vector<std::string_view>& texts) {
  std::string out = "{";
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorCode::invalid_argument, cat("\"", shortened(word), "\" is no KEY=VALUE"));
    }
    const std::string key = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    const bool number = is_number(value) && std::ranges::find(texts, key) == texts.end();
    out += cat(out.size() > 1 ? "," : "", json::to_text(key), ":", number ? value : json::to_text(value));
  }
  return out + "}";
}

std::string text_of(const PropagationView& view) {
  if (view.deliveries.empty()) return "no worker was told anything\n";
  std::vector<Row> rows{{"WORKER", "CHANGE", "ABOUT", "LANE", "INTENDED", "CONFIRMED", "STATE", "WHY"}};
  for (const Delivery& each : view.deliveries) {
    const bool pending = each.confirmed_rev < each.intended_rev;
    rows.push_back({each.worker_id.str(), harmless(each.type), harmless(each.about.str()),
                    cat("P", static_cast<int>(each.urgency)), cat(each.intended_rev.value),
                    each.confirmed_rev == Rev{} ? "-" : cat(each.confirmed_rev.value),
                    pending ? "pending" : json::enum_name(each.outcome),
                    each.reason.empty() ? "-" : harmless(shortened(each.reason, 120))});
  }
  return table_text(rows);
}

ExitCode show_propagation(const http::Address& address, const std::string& worker, bool as_json) {
  const std::string path = worker.empty() ? "/api/v1/propagation" : cat("/api/v1/propagation/", worker);
  return tell_view<PropagationView>(http::request(address, "GET", path), 200, as_json,
                                    [](const PropagationView& view) { return text_of(view); });
}

ExitCode list_devices(const http::Address& address, bool as_json) {
  return tell_view<DevicesView>(http::request(address, "GET", "/api/v1/devices"), 200, as_json,
                                [](const DevicesView& view) { return text_of(view); });
}

std::string text_of(const CalibrationView& view) {
  std::string out = cat(harmless(view.device_id.str()), " was measured at ", harmless(view.calibrated_at), "\n");
  for (const auto& [name, score] : view.scores_after.items) {
    const double* const before = view.scores_before.find(name);
    out += cat(harmless(name), ": ", score, before == nullptr ? " (new)" : cat(" (before: ", *before, ")"), "\n");
  }
  for (const auto& [name, score] : view.scores_before.items) {
    if (view.scores_after.find(name) == nullptr) out += cat(harmless(name), ": not known (before: ", score, ")\n");
  }
  for (const std::string& each : view.capabilities_gained) out += cat("can now do: ", harmless(each), "\n");
  for (const std::string& each : view.capabilities_lost) out += cat("cannot do any more: ", harmless(each), "\n");
  return out;
}

ExitCode show_device(const http::Address& address, const std::string& id, bool as_json) {
  auto config = http::request(address, "GET", cat("/api/v1/devices/", id, "/config"));
  if (!config || config->status != 200 || !config->body.ends_with('}')) return shown(config, as_json);
  const auto device = http::request(address, "GET", cat("/api/v1/devices/", id));
  if (!device || device->status != 200) return shown(device, as_json);
  config->body.pop_back();
  config->body += cat(",\"device\":", device->body, "}");
  return shown(config, as_json);
}

ExitCode calibrate_device(const http::Address& address, const std::string& id, bool as_json) {
  return tell_view<CalibrationView>(http::request(address, "POST", cat("/api/v1/devices/", id, "/calibrate")), 200,
                                    as_json, [](const CalibrationView& view) { return text_of(view); });
}

ExitCode show_setting(const http::Address& address, const std::string& path, bool as_json) {
  return shown(http::request(address, "GET", cat("/api/v1/", path)), as_json);
}

ExitCode show_memory_history(const http::Address& address, bool as_json) {
  return tell_view<memory::UsageReport>(http::request(address, "GET", "/api/v1/memory/history"), 200, as_json,
                                        [](const memory::UsageReport& report) { return text_of(report); });
}

ExitCode set_setting(const http::Address& address, const std::string& path, const std::vector<std::string>& words,
                     std::string_view under, bool whole, bool as_json) {
  const auto object = object_of(words);
  if (!object) return tell(object.error());
  const std::string body = under.empty() ? *object : cat("{\"", under, "\":", *object, "}");
  return shown(http::request(address, whole ? "PUT" : "PATCH", cat("/api/v1/", path), body,
                             {{"Content-Type", "application/json"}}),
               as_json);
}

}  // namespace lockstep::cli
