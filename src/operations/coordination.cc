#include "operations/coordination.h"

#include <algorithm>
#include <array>

#include "events/json_read.h"

namespace lockstep {

namespace {

using processing::JobStage;

bool is_part_of(std::string_view name, std::string_view operation) {
  return name == operation || (name.starts_with(operation) && name[operation.size()] == '_');
}

/// A workflow's word, and the operation of a pipeline that it stands for.
constexpr std::array<std::pair<std::string_view, std::string_view>, 2> pipeline_words{
    {{"upscale", "upscaling"}, {"safety", "safety_check"}}};

bool is_inference(std::string_view name) { return is_part_of(name, "inference") || name == "generate"; }

bool is_postprocessing(std::string_view name, const processing::Request& request) {
  if (is_part_of(name, "postprocessing")) return true;
  const auto word = std::ranges::find(pipeline_words, name, [](const auto& each) { return each.first; });
  const std::string_view operation = word == pipeline_words.end() ? name : word->second;
  return std::ranges::any_of(request.pipeline, [&](const auto& each) { return each.operation == operation; });
}

}  // namespace

void note_dependency(Dependencies& all, const std::string& key, const OpenRequest* row) {
  for (auto session = all.begin(); session != all.end();) {
    session->second.erase(key);
    session = session->second.empty() ? all.erase(session) : std::next(session);
  }
  if (row == nullptr || row->request_type != CrossDomainCoordination::event_type) return;
  const auto message = json::from_text<CrossDomainCoordination>(row->body.text);
  if (!message || message->dependent_operations.empty()) return;  // of a session that its worker has no say in
  all[message->session_id][key] = {message->dependent_operations, row->answer.outcome, row->answer.reason.value_or(""),
                                   row->asked};
}

bool names_an_operation(std::string_view name) {
  return is_inference(name) || is_part_of(name, "postprocessing") ||
         std::ranges::any_of(pipeline_words,
                             [&](const auto& each) { return name == each.first || name == each.second; });
}

const Dependency* holds_back(const Dependencies& all, const processing::Request& request, const processing::Job& job) {
  if (!request.session_id) return nullptr;
  const auto session = all.find(*request.session_id);
  if (session == all.end()) return nullptr;
  const Dependency* newest = nullptr;
  for (const auto& [key, each] : session->second) {
    const bool about = std::ranges::any_of(each.operations, [&](const std::string& name) {
      if (job.stage == JobStage::queued) return is_inference(name);
      return job.stage == JobStage::generated && is_postprocessing(name, request);
    });
    if (about && (newest == nullptr || each.asked >= newest->asked)) newest = &each;
  }
  return newest == nullptr || newest->outcome == RequestOutcome::granted ? nullptr : newest;
}

}  // namespace lockstep
