#include "cli/content.h"

#include <fstream>
#include <iterator>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/govern.h"
#include "cli/show.h"
#include "events/json_read.h"

namespace lockstep::cli {

namespace {

Status check_name(std::string_view what, const std::string& name) {
  if (is_plain_name(name)) return {};
  return fail(ErrorCode::not_found, cat("there is no ", what, " ", shortened(harmless(name))));
}

Result<std::string> text_in(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return fail(ErrorCode::invalid_argument, cat("cannot read ", file));
  return std::string{std::istreambuf_iterator<char>(in), {}};
}

/// The body of a good answer; the exit code of a bad one.
std::expected<std::string, ExitCode> body_of(const Result<http::Response>& response) {
  if (!response) return std::unexpected(tell(response.error()));
  if (response->status != 200) return std::unexpected(tell(http::error_from(*response)));
  return response->body;
}

template <class View>
ExitCode show(const Result<http::Response>& response, bool as_json) {
  return tell_view<View>(response, 200, as_json, [](const View& view) { return text_of(view); });
}

/// The server's JSON, or one line for people.
ExitCode say(const Result<http::Response>& response, bool as_json, const std::string& line) {
  const auto body = body_of(response);
  if (!body) return body.error();
  print(cat(as_json ? *body : line, "\n"));
  return ExitCode::done;
}

struct StartedBody {
  std::string session_id;
  RequestId request_id;
};
BOOST_DESCRIBE_STRUCT(StartedBody, (), (session_id, request_id))

std::string joined(const std::vector<std::string>& words, std::string_view between) {
  std::string out;
  for (const std::string& each : words) out += cat(out.empty() ? "" : between, harmless(each));
  return out;
}

}  // namespace

std::string text_of(const TemplatesView& view) {
  std::vector<Row> rows{{"WORKFLOW", "VERSION", "FROM", "OPERATIONS"}};
  for (const TemplateView& each : view.workflows) {
    rows.push_back({harmless(each.workflow.name), cat(each.workflow.version), each.built_in ? "built in" : "added",
                    joined(each.order, " > ")});
  }
  return table_text(rows);
}

std::string text_of(const TemplateView& view) {
  std::string out = cat(harmless(view.workflow.name), ", version ", view.workflow.version, "\n");
  for (const processing::TemplateOperation& each : view.workflow.operations) {
    out += cat(harmless(each.name), ": ", harmless(each.operation));
    out += each.inputs.empty() ? "\n" : cat(" of ", joined(each.inputs, ", "), "\n");
  }
  return out;
}

std::string text_of(const OutputsView& view) {
  if (view.outputs.empty()) return "no outputs\n";
  std::vector<Row> rows{{"OUTPUT", "REQUEST", "SIZE", "TAGS", "REVIEW"}};
  for (const OutputView& each : view.outputs) {
    rows.push_back({harmless(each.sha256), harmless(each.request_id.str()), cat(each.width, "x", each.height),
                    joined(each.tags, ","), harmless(each.review)});
  }
  return table_text(rows);
}

ExitCode list_workflows(const http::Address& address, bool as_json) {
  return show<TemplatesView>(http::request(address, "GET", "/api/v1/workflows"), as_json);
}

ExitCode show_workflow(const http::Address& address, const std::string& name, bool as_json) {
  if (const Status good = check_name("workflow", name); !good) return tell(good.error());
  return show<TemplateView>(http::request(address, "GET", cat("/api/v1/workflows/", name)), as_json);
}

ExitCode add_workflow(const http::Address& address, const std::string& file, bool as_json) {
  auto body = text_in(file);
  if (!body) return tell(body.error());
  // What `workflows show --json` prints can be given back as it is.
  if (const auto shown = json::from_text<TemplateView>(*body)) {
    body = json::to_text(TemplateBody{shown->workflow.name, shown->workflow.operations});
  }
  return show<TemplateView>(http::request(address, "POST", "/api/v1/workflows", *body), as_json);
}

ExitCode remove_workflow(const http::Address& address, const std::string& name, bool as_json) {
  if (const Status good = check_name("workflow", name); !good) return tell(good.error());
  return say(http::request(address, "POST", cat("/api/v1/workflows/", name, "/remove")), as_json,
             cat(name, " is removed"));
}

ExitCode run_workflow(const http::Address& address, const std::string& name, const std::vector<std::string>& parameters,
                      bool as_json) {
  if (const Status good = check_name("workflow", name); !good) return tell(good.error());
  const auto body = object_of(parameters, {"prompt", "negative_prompt"});
  if (!body) return tell(body.error());
  const auto answer = body_of(http::request(address, "POST", cat("/api/v1/workflows/", name, "/run"), *body));
  if (!answer) return answer.error();
  const auto started = json::from_text<StartedBody>(*answer);
  if (as_json || !started) {
    print(*answer + "\n");
  } else {
    print(cat(harmless(started->session_id), ": ", harmless(started->request_id.str()), "\n"));
  }
  return ExitCode::done;
}

ExitCode list_outputs(const http::Address& address, const OutputOptions& options, bool as_json) {
  if (!options.tag.empty() && !is_plain_name(options.tag)) {
    return tell(fail(ErrorCode::invalid_argument, cat("no tag is called ", shortened(harmless(options.tag)))));
  }
  std::string query;
  if (!options.tag.empty()) query += cat("?tag=", options.tag);
  if (options.review) query += cat(query.empty() ? "?" : "&", "review=true");
  return show<OutputsView>(http::request(address, "GET", cat("/api/v1/outputs", query)), as_json);
}

ExitCode tag_output(const http::Address& address, const std::string& sha256, const OutputOptions& options,
                    bool as_json) {
  if (const Status good = check_name("output", sha256); !good) return tell(good.error());
  const TagBody body{options.add, options.remove, options.reviewed};
  return say(http::request(address, "POST", cat("/api/v1/outputs/", sha256, "/tags"), json::to_text(body)), as_json,
             cat(sha256, " is tagged"));
}

ExitCode show_policy(const http::Address& address) {
  const auto body = body_of(http::request(address, "GET", "/api/v1/policies/safety"));
  if (!body) return body.error();
  print(*body + "\n");
  return ExitCode::done;
}

ExitCode set_policy(const http::Address& address, const std::string& file) {
  const auto text = text_in(file);
  if (!text) return tell(text.error());
  return say(http::request(address, "POST", "/api/v1/policies/safety", *text), false, "the policy is set");
}

}  // namespace lockstep::cli
