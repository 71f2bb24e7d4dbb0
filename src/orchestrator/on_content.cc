// Commands about what is made: workflow templates and their runs, tags of outputs, the safety policy (§1.4, §1.6).

#include <utility>

#include "domains/postprocessing/rules.h"
#include "operations/outputs.h"
#include "operations/sessions.h"
#include "operations/workflows.h"
#include "orchestrator/admission.h"
#include "orchestrator/deliver.h"
#include "orchestrator/on_session.h"

namespace lockstep {

namespace {

struct Started {
  std::string session_id;
  RequestId request_id;
};
BOOST_DESCRIBE_STRUCT(Started, (), (session_id, request_id))

struct Done {
  std::string state;
};
BOOST_DESCRIBE_STRUCT(Done, (), (state))

TemplateView view_of(const processing::WorkflowTemplate& workflow) {
  return {workflow, workflow.name == built_in_template().name, planned(workflow).value_or(std::vector<std::string>{})};
}

Result<std::string> run(Turn& turn, const in::Command& input, const std::string& name) {
  if (!turn.live.scanned) return fail(ErrorCode::unavailable, "the models are being read; try again shortly");
  if (const std::string why = nothing_new_because(turn); !why.empty()) return fail(ErrorCode::unavailable, why);
  const GenerateBody body = LOCKSTEP_TRY(read_command_body<GenerateBody>(input.body));
  const RequestId request = request_id(turn.live.epoch, ++turn.live.requests_made);
  const std::string session = session_id(turn.live.epoch, ++turn.live.sessions_made);
  // A body without a seed gets the number of the request: different for each, the same on a replay.
  const WorkflowRun run = LOCKSTEP_TRY(run_workflow(turn.tables, turn.settings.accept, name, body, session, request,
                                                    turn.live.requests_made, turn.wall, turn.change));
  return json::to_text(Started{run.session.session_id, run.request.request_id});
}

/// "workflows/<name>/<word>" in its two names; empty ones where there is no such name.
std::pair<std::string, std::string> name_and_word(const std::string& path) {
  const std::size_t slash = path.find('/');
  const std::size_t last = path.rfind('/');
  const std::string name = slash < last ? path.substr(slash + 1, last - slash - 1) : "";
  return {name, last == std::string::npos ? "" : path.substr(last + 1)};
}

Result<std::string> workflow_command(Turn& turn, const in::Command& input) {
  const auto [name, word] = name_and_word(input.path);
  if (input.path == "workflows") {
    const TemplateBody body = LOCKSTEP_TRY(read_command_body<TemplateBody>(input.body));
    return json::to_text(view_of(LOCKSTEP_TRY(add_template(turn.tables, body, turn.change))));
  }
  if (word == "run") return run(turn, input, name);
  if (word == "remove") {
    LOCKSTEP_TRY_STATUS(remove_template(turn.tables, name, turn.change));
    return json::to_text(Done{"removed"});
  }
  return fail(ErrorCode::not_found, cat("there is no ", shortened(input.path)));
}

Result<std::string> tag_output(Turn& turn, const in::Command& input) {
  const auto [name, word] = name_and_word(input.path);
  if (word != "tags") return fail(ErrorCode::not_found, cat("there is no ", shortened(input.path)));
  const TagBody body = LOCKSTEP_TRY(read_command_body<TagBody>(input.body));
  LOCKSTEP_TRY_STATUS(tag_outputs(turn.tables, name, body, turn.change));
  return json::to_text(Done{"tagged"});
}

Result<std::string> set_policy(Turn& turn, const in::Command& input) {
  if (input.path != "policies/safety") return fail(ErrorCode::not_found, cat("there is no ", shortened(input.path)));
  const SafetyPolicyUpdate policy = LOCKSTEP_TRY(read_command_body<SafetyPolicyUpdate>(input.body));
  LOCKSTEP_TRY_STATUS(set_safety_policy(turn.tables, policy, turn.change));
  for (const auto& [key, entry] : turn.tables.liveness.workers.entries()) {
    if (entry.row.state == WorkerState::ready) tell(turn, entry.row, FrameType::safety_policy_update, policy);
  }
  return json::to_text(policy);
}

/// Answers with what `handler` makes of the command; a server that is stopping takes none.
void answer(Turn& turn, const in::Command& input, Result<std::string> (*handler)(Turn&, const in::Command&)) {
  const Result<std::string> text =
      turn.live.stopping ? fail(ErrorCode::unavailable, "the server is stopping") : handler(turn, input);
  if (!text) return reply_error(turn, input.reply, text.error());
  turn.effect(out::Reply{input.reply, 200, *text});
}

}  // namespace

void tell_content_facts(Turn& turn, const WorkerRecord& worker) {
  const SafetyPolicyUpdate* policy = turn.tables.postprocessing.policies.find("safety");
  if (policy != nullptr) tell(turn, worker, FrameType::safety_policy_update, *policy);
}

void on_command_workflow(Turn& turn, const in::CommandWorkflow& input) { answer(turn, input, workflow_command); }
void on_tag_output(Turn& turn, const in::TagOutput& input) { answer(turn, input, tag_output); }
void on_set_safety_policy(Turn& turn, const in::SetSafetyPolicy& input) { answer(turn, input, set_policy); }
void on_list_outputs(Turn& turn, const in::ListOutputs& input) {
  const auto filter = read_command_body<OutputFilter>(input.body);
  if (!filter) return reply_error(turn, input.reply, filter.error());
  turn.effect(out::Reply{input.reply, 200, json::to_text(outputs_view(turn.tables, turn.live.rev, *filter))});
}

Result<std::string> content_view(const Turn& turn, const std::string& path) {
  constexpr std::string_view one = "workflows/";
  if (path == "workflows") return json::to_text(templates_view(turn.tables, turn.live.rev));
  if (path == "policies/safety") return json::to_text(postprocessing::policy_of(turn.tables.postprocessing));
  return json::to_text(view_of(LOCKSTEP_TRY(template_named(turn.tables, path.substr(one.size())))));
}

}  // namespace lockstep
