#include "cli/show.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.h"
#include "events/inference_events.h"
#include "events/json_read.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"

namespace lockstep::cli {

namespace {

std::string or_dash(std::string_view text) { return text.empty() ? "-" : harmless(text); }

/// A terminal column per code point: good enough for names and prompts of most scripts.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

/// At most `width` columns, never through the middle of a character.
std::string cut(std::string_view text, std::size_t width) {
  if (width_of(text) <= width) return std::string(text);
  std::size_t at = 0;
  for (std::size_t seen = 0; at < text.size(); ++at) {
    if ((text[at] & 0xC0) == 0x80) continue;
    if (seen + 3 >= width) break;
    ++seen;
  }
  return cat(text.substr(0, at), "...");
}

std::string percent_text(double percent) { return cat(static_cast<int>(std::lround(percent)), " %"); }

std::string decimals(double number, int digits) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed, digits);
  return std::string(buffer, end.ptr);
}

std::string spaced(std::string text) {
  std::ranges::replace(text, '_', ' ');
  return harmless(text);
}

std::vector<Row> model_rows(const std::vector<ModelView>& models) {
  std::vector<Row> rows{{"MODEL", "KIND", "STATE", "MEMORY", "RESIDENT ON", "CACHED", "USES", "LAST USED"}};
  for (const ModelView& each : models) {
    std::string resident;
    for (const ResidencyView& on : each.residencies) {
      if (!resident.empty()) resident += ", ";
      resident += on.worker_id.str();
      if (on.state != "loaded") resident += cat(" (", on.state, ")");
    }
    std::string state = json::enum_name(each.model.availability);
    if (!each.model.reason.empty()) state += cat(": ", cut(each.model.reason, 60));
    const auto filled = std::ranges::count_if(each.cached, [](const auto& part) { return part.state == "ready"; });
    rows.push_back({each.model.model_id.str(), json::enum_name(each.model.kind), std::move(state),
                    to_text(each.model.bytes), or_dash(resident),
                    cat(filled, "/", each.model.components.size(), " parts"), each.usage ? cat(each.usage->uses) : "-",
                    or_dash(each.usage ? each.usage->last_used.value_or("") : "")});
  }
  return rows;
}

/// The image of a run id: "inf:<request>/<image>:<attempt>".
std::optional<unsigned> image_of(const std::string& run_id) {
  const std::size_t slash = run_id.find('/');
  if (slash == std::string::npos) return std::nullopt;
  unsigned number = 0;
  const char* const end = run_id.data() + run_id.size();
  if (std::from_chars(run_id.data() + slash + 1, end, number).ec != std::errc{}) return std::nullopt;
  return number;
}

std::string numbered(const std::string& run_id, std::uint32_t n, std::string words) {
  const auto image = image_of(run_id);
  return n > 1 && image ? cat("[", *image + 1, "/", n, "] ", words) : words;
}

}  // namespace

std::string harmless(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  // C1 controls, as UTF-8: a terminal may take them for escapes as well.
  for (std::size_t i = 0; i + 1 < out.size(); ++i) {
    if (out[i] == '\xC2' && static_cast<unsigned char>(out[i + 1]) < 0xA0) out.replace(i, 2, "  ");
  }
  return out;
}

std::string table_text(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += harmless(row[i]);
      if (i + 1 < row.size()) line.append(widths[i] - width_of(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string text_of(const StatusView& view) {
  const std::string readiness = view.ready ? "ready" : cat("not ready: ", harmless(view.not_ready_because));
  std::string out = cat("lockstep ", harmless(view.version), "  epoch ", view.epoch.value, "  rev ", view.rev.value,
                        "  ", readiness, "\n");
  out += cat("queue: ", view.queue.open, " open, ", view.queue.running, " running, ", view.queue.queued, " waiting\n");
  out += cat("cache: ", to_text(view.cache_used), " of ", to_text(view.cache_limit), "\n");
  if (view.disk_free) out += cat("disk: ", to_text(*view.disk_free), " free\n");
  out += "\n";
  std::vector<Row> rows{{"WORKER", "STATE", "PID", "DEVICE", "MEMORY", "TASK"}};
  for (const WorkerView& each : view.workers) {
    const auto device = std::ranges::find(view.devices, each.device_id, &DeviceView::device_id);
    std::string memory;
    if (device != view.devices.end()) {
      memory = cat(to_text(device->memory_allocated), " of ", to_text(device->memory_budget));
    }
    std::string state = each.state;
    if (each.state == "gone" && !each.last_end.empty()) state += cat(": ", cut(each.last_end, 60));
    if (!each.broken_because.empty()) state += cat(": ", cut(each.broken_because, 60));
    rows.push_back({each.worker_id.str(), state, each.pid == 0 ? "-" : cat(each.pid), each.device_id.str(),
                    or_dash(memory), or_dash(each.task)});
  }
  out += view.workers.empty() ? "no workers\n" : table_text(rows);
  return out + "\n" + (view.models.empty() ? "no models\n" : table_text(model_rows(view.models)));
}

std::string text_of(const ModelsView& view) {
  return view.models.empty() ? "no models\n" : table_text(model_rows(view.models));
}

std::string text_of(const RequestsView& view) {
  if (view.requests.empty()) return "no requests\n";
  std::vector<Row> rows{{"REQUEST", "KIND", "STATE", "CREATED", "IMAGES", "PROMPT"}};
  for (const RequestSummary& each : view.requests) {
    std::string state = each.state;
    if (each.failure) state += cat(": ", each.failure->code);
    rows.push_back({each.request_id.str(), each.kind, state, each.created, cat(each.n), or_dash(cut(each.prompt, 60))});
  }
  return table_text(rows);
}

std::string text_of(const RequestView& view) {
  std::string out = cat(view.request_id.str(), "  ", view.kind, "  ", view.state, "\n");
  out += cat("created ", view.created, view.finished.empty() ? "" : cat(", finished ", view.finished), "\n");
  if (view.failure) out += cat(view.failure->code, ": ", harmless(view.failure->message), "\n");
  if (view.kind == "generation") {
    const InferenceParameters& p = view.parameters;
    out += cat("model ", view.model.str(), ", ", p.width, "x", p.height, ", ", p.steps, " steps, guidance ",
               decimals(p.guidance_scale, 1), "\nprompt: ", harmless(p.prompt), "\n");
    if (p.negative_prompt) out += cat("negative prompt: ", harmless(*p.negative_prompt), "\n");
  }
  std::vector<Row> rows{{"IMAGE", "STAGE", "DOING", "WORKERS", "SEED", "SAFETY", "OUTPUT"}};
  for (const JobView& job : view.jobs) {
    std::string workers = job.inference_worker.str();
    if (!job.postprocessing_worker.empty() && job.postprocessing_worker != job.inference_worker) {
      workers += cat(workers.empty() ? "" : ", ", job.postprocessing_worker.str());
    }
    const std::string doing =
        job.doing.empty() ? or_dash(job.waits_for) : cat(job.doing, " ", percent_text(job.percent));
    rows.push_back({cat(job.index), job.stage, doing, or_dash(workers), cat(job.seed),
                    verdict_of(job.results).value_or("-"), job.output ? job.output->sha256 : "-"});
  }
  return out + "\n" + table_text(rows);
}

std::string text_of(const http::EventLine& event, std::size_t width) {
  std::string line = cat(event.time, "  ", event.rev ? cat(event.rev->value) : "-", "  ", event.type, "  ",
                         or_dash(event.subject), "  ", event.body.text);
  return cut(harmless(line), width);
}

std::optional<std::string> verdict_of(const std::optional<FinalResults>& results) {
  if (!results || !results->safety_analysis) return std::nullopt;
  const SafetyAnalysis& safety = *results->safety_analysis;
  return cat(harmless(safety.safety_classification), " (", decimals(safety.content_safety_score, 3), ")");
}

std::optional<Step> step_of(const http::EventLine& event, std::uint32_t n) {
  const std::string& text = event.body.text;
  if (event.type == "request_accepted") return Step{cat("accepted as ", event.subject)};
  if (event.type == "request_completed") return Step{"stored", 100};
  if (event.type == ModelLoadingProgress::event_type) {
    const auto body = json::from_text<ModelLoadingProgress>(text);
    if (!body || body->loading_stage == "failed") return std::nullopt;
    if (body->loading_stage == "loaded") return Step{cat("loaded ", body->model_id.str()), 100};
    const double percent = body->progress_percentage.value;
    return Step{cat("loading ", body->model_id.str(), " ", percent_text(percent)), percent};
  }
  if (event.type == InferenceProgress::event_type) {
    const auto body = json::from_text<InferenceProgress>(text);
    if (!body || body->execution_metrics.total_steps == 0) return std::nullopt;
    const auto [step, total, average, end] = body->execution_metrics;
    return Step{numbered(body->request_id, n, cat("inference step ", step, "/", total)), 100.0 * step / total};
  }
  if (event.type == PostprocessingProgress::event_type) {
    const auto body = json::from_text<PostprocessingProgress>(text);
    if (!body) return std::nullopt;
    const double percent = body->pipeline_progress.current_operation_progress.value;
    const std::string operation = spaced(body->pipeline_progress.current_operation);
    return Step{numbered(body->request_id, n, cat(operation, " ", percent_text(percent))), percent};
  }
  if (event.type == PostprocessingCompleted::event_type) {
    const auto body = json::from_text<PostprocessingCompleted>(text);
    if (!body) return std::nullopt;
    const auto verdict = verdict_of(body->final_results);
    if (!verdict) return std::nullopt;
    return Step{numbered(body->request_id, n, cat("safety check: ", *verdict)), 100};
  }
  return std::nullopt;
}

}  // namespace lockstep::cli
