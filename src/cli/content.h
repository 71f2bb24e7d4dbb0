#pragma once

// `lockstep workflows list|show|add|remove|run`, `lockstep outputs list|tag`, `lockstep policy show|set`: what is made,
// and by which rules (§1.4, §1.6).

#include <optional>
#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/outputs.h"
#include "operations/workflows.h"

namespace lockstep::cli {

std::string text_of(const TemplatesView& view);
std::string text_of(const TemplateView& view);
std::string text_of(const OutputsView& view);

ExitCode list_workflows(const http::Address& address, bool as_json);
ExitCode show_workflow(const http::Address& address, const std::string& name, bool as_json);
/// The file holds the JSON that the API takes.
ExitCode add_workflow(const http::Address& address, const std::string& file, bool as_json);
ExitCode remove_workflow(const http::Address& address, const std::string& name, bool as_json);
/// parameters   "key=value" of a generation's body; a value that is no JSON is text
ExitCode run_workflow(const http::Address& address, const std::string& name, const std::vector<std::string>& parameters,
                      bool as_json);

struct OutputOptions {
  std::string tag;
  bool review = false;
  std::vector<std::string> add;
  std::vector<std::string> remove;
  bool reviewed = false;
};
ExitCode list_outputs(const http::Address& address, const OutputOptions& options, bool as_json);
ExitCode tag_output(const http::Address& address, const std::string& sha256, const OutputOptions& options,
                    bool as_json);

ExitCode show_policy(const http::Address& address);
ExitCode set_policy(const http::Address& address, const std::string& file);

}  // namespace lockstep::cli
