#include "cli/models.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <optional>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/govern.h"
#include "cli/progress.h"
#include "cli/show.h"
#include "events/json_read.h"
#include "http/shapes.h"

namespace lockstep::cli {

namespace {

constexpr int look_every_ms = 100;

Status check_id(const std::string& id) {
  if (is_plain_name(id)) return {};
  return fail(ErrorCode::not_found, cat("there is no model ", shortened(harmless(id))));
}

struct OrderBody {
  std::optional<std::string> worker;
  std::optional<std::string> priority;
};
BOOST_DESCRIBE_STRUCT(OrderBody, (), (worker, priority))

struct VerifyProgress {
  std::string component;
  double progress_percentage = 0;
};
BOOST_DESCRIBE_STRUCT(VerifyProgress, (), (component, progress_percentage))

std::optional<Step> step_about(const http::ServerSentEvent& event, const std::string& id) {
  const auto line = json::from_text<http::EventLine>(event.data, nullptr, view_limits);
  if (!line) return std::nullopt;
  if (line->type != "model_verify_progress") return step_of(*line, 1);
  const auto body = json::from_text<VerifyProgress>(line->body.text);
  if (!body) return std::nullopt;
  return Step{cat("reading ", body->component, " of ", id), body->progress_percentage};
}

/// One request that may take long; what the server publishes about the model meanwhile is shown.
Result<http::Response> watched(const http::Address& address, const std::string& id, const std::string& target,
                               const std::string& body) {
  auto stream = http::EventStream::open(address, cat("/api/v1/events?subject=", id));
  auto answer = std::async(std::launch::async, [&] { return http::request(address, "POST", target, body); });
  Progress progress(stderr_screen());
  while (answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (!stream) {
      answer.wait();
      break;
    }
    const auto event = (*stream)->next(look_every_ms);
    if (!event) {
      answer.wait();  // the stream ended; the answer says why
    } else if (*event) {
      if (const auto step = step_about(**event, id)) progress.show(*step);
    }
  }
  progress.clear();
  return answer.get();
}

std::string sorted_by_worker(const ModelView& view) {
  std::string out;
  for (const ResidencyView& each : view.residencies) {
    std::string state = each.state == "loaded" ? "" : each.state;
    if (state.empty() && each.runtime) state = each.runtime->warmup_completed ? "warm" : "cold";
    out += cat(out.empty() ? "" : ", ", each.worker_id.str(), state.empty() ? "" : cat(" (", state, ")"));
  }
  return out.empty() ? "no worker" : out;
}

std::string words_of(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += cat(out.empty() ? "" : ", ", harmless(word));
  return out;
}

/// What it can do, what it works with, and what a person set for it.
std::string abilities_of(const ModelView& view) {
  std::string out;
  if (view.capabilities) {
    std::vector<std::string> can = view.capabilities->inference_types;
    can.insert(can.end(), view.capabilities->operations.begin(), view.capabilities->operations.end());
    out += cat("can do: ", can.empty() ? "nothing by itself" : words_of(can), "\n");
    for (const CompanionView& each : view.capabilities->companions) {
      out += cat(each.fits ? "fits " : "does not fit ", harmless(each.role), ": ", harmless(each.model_id.str()),
                 each.problem.empty() ? "" : cat(": ", harmless(each.problem)), "\n");
    }
  }
  if (view.config) {
    const inference::Tuning& set = *view.config;
    if (set.scheduler) out += cat("scheduler: ", json::enum_name(*set.scheduler), "\n");
    if (set.default_steps) out += cat("default steps: ", *set.default_steps, "\n");
    if (set.default_guidance_scale) out += cat("default guidance scale: ", *set.default_guidance_scale, "\n");
    if (set.max_steps) out += cat("most steps: ", *set.max_steps, "\n");
  }
  return out;
}

std::string order_body(const ModelOptions& options) {
  const auto given = [](const std::string& word) { return word.empty() ? std::nullopt : std::optional(word); };
  return json::to_text(OrderBody{given(options.worker), given(options.priority)});
}

std::string text_of(const LoadQueueView& view) {
  if (view.loads.empty()) return "no load waits\n";
  std::string out;
  for (const QueuedLoad& each : view.loads) {
    out += cat(each.action, " ", each.model_id.str(), each.worker_id.empty() ? "" : cat(" on ", each.worker_id.str()),
               "  ", json::enum_name(each.priority), "  ", each.state);
    if (each.percent > 0) out += cat(" ", static_cast<int>(each.percent), " %");
    out += cat("  (", each.asked_by, " asked)\n");
  }
  return out;
}

}  // namespace

std::string text_of(const ModelView& view) {
  const model::Model& model = view.model;
  std::string out = cat(model.model_id.str(), "  ", json::enum_name(model.kind));
  if (model.facts && !model.facts->architecture.empty()) out += cat("  ", harmless(model.facts->architecture));
  out += cat("  ", json::enum_name(model.availability), "\n");
  if (!model.reason.empty()) out += cat("reason: ", harmless(model.reason), "\n");
  out += cat("path: ", harmless(model.path), "\n");
  if (model.facts && !model.facts->version.empty()) out += cat("version: ", harmless(model.facts->version), "\n");
  out += cat("memory: ", to_text(model.bytes), "\n", "loaded on: ", sorted_by_worker(view), "\n");
  out += abilities_of(view);
  if (view.usage) {
    out += cat("loaded ", view.usage->loads, " times, last ", view.usage->last_loaded.value_or("never"), "\n", "used ",
               view.usage->uses, " times, last ", view.usage->last_used.value_or("never"), "\n");
  }
  if (view.doing) {
    for (const ModelDoing& each : *view.doing) out += cat("now: ", each.what, " ", harmless(each.detail), "\n");
  }
  if (model.facts) {
    for (const std::string& each : model.facts->evidence) out += cat("evidence: ", harmless(each), "\n");
  }
  if (view.needs) {
    for (const model::Need& each : *view.needs) {
      out += cat("needs ", harmless(each.role), ": ", each.model_id.empty() ? "-" : harmless(each.model_id.str()), "  ",
                 each.state, each.problem.empty() ? "" : cat(": ", harmless(each.problem)), "\n");
    }
  }
  if (model.components.empty()) return out;
  std::vector<Row> rows{{"COMPONENT", "FILES", "TENSORS", "DTYPES", "MEMORY", "CACHE", "SHA256"}};
  for (const model::Component& each : model.components) {
    std::string dtypes;
    for (const std::string& dtype : each.dtypes) dtypes += cat(dtypes.empty() ? "" : ",", dtype);
    std::string cached = "-";
    for (const CachedComponent& part : view.cached) {
      if (part.component == each.name) cached = part.state;
    }
    rows.push_back({each.name, cat(each.files.size()), cat(each.tensors), dtypes, to_text(each.segment_bytes), cached,
                    each.sha256.empty() ? "not read yet" : each.sha256});
  }
  return out + "\n" + table_text(rows);
}

ExitCode show_model(const http::Address& address, const ModelOptions& options) {
  if (const Status good = check_id(options.id); !good) return tell(good.error());
  return tell_view<ModelView>(http::request(address, "GET", cat("/api/v1/models/", options.id)), 200, options.json,
                              [](const ModelView& view) { return text_of(view); });
}

ExitCode add_model(const http::Address& address, const ModelOptions& options) {
  http::AddModelBody body;
  // The server may stand in another folder; it reads the path itself.
  body.path = std::filesystem::absolute(options.path).lexically_normal().string();
  if (!options.name.empty()) body.name = options.name;
  body.mode = options.link ? "link" : "copy";
  return tell_view<ModelView>(http::request(address, "POST", "/api/v1/models", json::to_text(body)), 201, options.json,
                              [&](const ModelView& view) {
                                return cat("added ", view.model.model_id.str(), ": ", json::enum_name(view.model.kind),
                                           ", needs ", to_text(view.model.bytes), "\n");
                              });
}

ExitCode remove_model(const http::Address& address, const ModelOptions& options) {
  if (const Status good = check_id(options.id); !good) return tell(good.error());
  const auto response =
      http::request(address, "DELETE", cat("/api/v1/models/", options.id, options.force ? "?force=true" : ""));
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  print(options.json ? response->body + "\n" : cat("removed ", options.id, "\n"));
  return ExitCode::done;
}

ExitCode verify_models(const http::Address& address, const ModelOptions& options) {
  std::vector<std::string> names = options.names;
  if (names.empty()) {
    const auto response = http::request(address, "GET", "/api/v1/models");
    if (!response) return tell(response.error());
    if (response->status != 200) return tell(http::error_from(*response));
    const auto view = json::from_text<ModelsView>(response->body, nullptr, view_limits);
    if (!view) return tell(view.error());
    for (const ModelView& each : view->models) names.push_back(each.model.model_id.str());
  }
  ExitCode worst = ExitCode::done;
  for (const std::string& name : names) {
    ExitCode code = ExitCode::done;
    if (const Status good = check_id(name); !good) {
      code = tell(good.error());
    } else {
      code = tell_view<ModelView>(
          watched(address, name, cat("/api/v1/models/", name, "/verify"), ""), 200, options.json,
          [](const ModelView& view) {
            return cat(view.model.model_id.str(), ": every byte of ", view.model.components.size(),
                       view.model.components.size() == 1 ? " component" : " components", " is as recorded\n");
          });
    }
    if (worst == ExitCode::done) worst = code;
  }
  return worst;
}

ExitCode load_model(const http::Address& address, const ModelOptions& options) {
  if (const Status good = check_id(options.id); !good) return tell(good.error());
  return tell_view<ModelView>(
      watched(address, options.id, cat("/api/v1/models/", options.id, "/load"), order_body(options)), 200, options.json,
      [](const ModelView& view) {
        return cat(view.model.model_id.str(), " is loaded on ", sorted_by_worker(view), "\n");
      });
}

ExitCode unload_model(const http::Address& address, const ModelOptions& options) {
  if (const Status good = check_id(options.id); !good) return tell(good.error());
  const auto response =
      watched(address, options.id, cat("/api/v1/models/", options.id, "/unload"), order_body(options));
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  print(options.json ? response->body + "\n" : cat(options.id, " is unloaded; its memory is free\n"));
  return ExitCode::done;
}

ExitCode show_load_queue(const http::Address& address, const ModelOptions& options) {
  return tell_view<LoadQueueView>(http::request(address, "GET", "/api/v1/loads"), 200, options.json,
                                  [](const LoadQueueView& view) { return text_of(view); });
}

ExitCode configure_model(const http::Address& address, const ModelOptions& options,
                         const std::vector<std::string>& assignments, bool whole) {
  if (const Status good = check_id(options.id); !good) return tell(good.error());
  const std::string path = cat("models/", options.id, "/config");
  if (assignments.empty() && !whole) return show_setting(address, path, options.json);
  return set_setting(address, path, assignments, "", whole, options.json);
}

}  // namespace lockstep::cli
