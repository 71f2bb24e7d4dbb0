#include "operations/workflows.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "operations/sessions.h"

namespace lockstep {

namespace {

using processing::TemplateOperation;
using processing::WorkflowTemplate;

constexpr std::size_t operations_max = 32;

Error refused(std::size_t at, std::string_view key, std::string why) {
  return fail(ErrorCode::invalid_argument, std::move(why), cat("/operations/", at, "/", key));
}

Status check_names(const WorkflowTemplate& workflow) {
  if (!is_plain_name(workflow.name)) {
    return fail(ErrorCode::invalid_argument, cat("name is \"", shortened(workflow.name), "\"; it must be a plain name"),
                "/name");
  }
  if (workflow.operations.size() > operations_max) {
    return fail(ErrorCode::invalid_argument,
                cat("there are ", workflow.operations.size(), " operations; the limit is ", operations_max),
                "/operations");
  }
  std::set<std::string> names;
  for (std::size_t i = 0; i < workflow.operations.size(); ++i) {
    const TemplateOperation& each = workflow.operations[i];
    if (!is_plain_name(each.name)) return refused(i, "name", cat("\"", shortened(each.name), "\" is no plain name"));
    if (!names.insert(each.name).second) return refused(i, "name", cat("the name ", each.name, " is there twice"));
    const bool known = each.operation == "generate" || each.operation == "upscale" || each.operation == "safety" ||
                       each.operation == "save";
    if (!known) {
      return refused(
          i, "operation",
          cat("operation is \"", shortened(each.operation), "\"; it must be generate, upscale, safety or save"));
    }
    const std::size_t wanted = each.operation == "generate" ? 0 : 1;
    if (each.inputs.size() != wanted) {
      return refused(i, "inputs",
                     cat(each.operation, " ", each.name, " has ", each.inputs.size(), " inputs; it needs ", wanted));
    }
  }
  for (std::size_t i = 0; i < workflow.operations.size(); ++i) {
    for (const std::string& input : workflow.operations[i].inputs) {
      if (!names.contains(input)) return refused(i, "inputs", cat("nothing makes the input ", shortened(input)));
    }
  }
  return {};
}

Result<std::vector<TemplateOperation>> in_order(const WorkflowTemplate& workflow) {
  LOCKSTEP_TRY_STATUS(check_names(workflow));
  std::vector<TemplateOperation> order;
  std::set<std::string> done;
  while (order.size() < workflow.operations.size()) {
    const auto next = std::ranges::find_if(workflow.operations, [&](const TemplateOperation& each) {
      return !done.contains(each.name) &&
             std::ranges::all_of(each.inputs, [&](const std::string& input) { return done.contains(input); });
    });
    if (next == workflow.operations.end()) {
      std::string names;
      for (const TemplateOperation& each : workflow.operations) {
        if (!done.contains(each.name)) names += cat(names.empty() ? "" : ", ", each.name);
      }
      return fail(ErrorCode::invalid_argument, cat("these need each other's results: ", names), "/operations");
    }
    done.insert(next->name);
    order.push_back(*next);
  }
  return order;
}

Status check_shape(const std::vector<TemplateOperation>& order) {
  const auto at_place = [](std::string why) {
    return fail(ErrorCode::invalid_argument, std::move(why), "/operations");
  };
  const auto count = [&](std::string_view operation) {
    return std::ranges::count(order, operation, &TemplateOperation::operation);
  };
  if (count("generate") != 1) return at_place(cat("there are ", count("generate"), " generate operations, not one"));
  if (count("upscale") > 1) return at_place(cat("there are ", count("upscale"), " upscale operations; at most one"));
  if (count("save") != 1) return at_place(cat("there are ", count("save"), " save operations, not one"));
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    // One image goes through all of it: whatever is not used by the next one is lost work.
    if (order[i + 1].inputs != std::vector{order[i].name}) {
      return at_place(cat(order[i + 1].name, " must have the result of ", order[i].name, " as its input"));
    }
  }
  if (order.back().operation != "save") return at_place(cat("nobody uses the result of ", order.back().name));
  if (order[order.size() - 2].operation != "safety") {
    return at_place(cat(order.back().name, " delivers what no safety step has seen"));
  }
  return {};
}

}  // namespace

WorkflowTemplate built_in_template() {
  return {"sdxl_generation_pipeline",
          1,
          {{"generate", "generate", {}},
           {"upscale", "upscale", {"generate"}},
           {"safety", "safety", {"upscale"}},
           {"save", "save", {"safety"}}}};
}

Result<std::vector<std::string>> planned(const WorkflowTemplate& workflow) {
  const std::vector<TemplateOperation> order = LOCKSTEP_TRY(in_order(workflow));
  LOCKSTEP_TRY_STATUS(check_shape(order));
  std::vector<std::string> names;
  for (const TemplateOperation& each : order) names.push_back(each.name);
  return names;
}

Result<WorkflowTemplate> template_named(const Tables& tables, const std::string& name) {
  if (name == built_in_template().name) return built_in_template();
  if (const WorkflowTemplate* found = tables.processing.templates.find(name)) return *found;
  return fail(ErrorCode::not_found, cat("there is no workflow ", shortened(name)));
}

Result<WorkflowTemplate> add_template(const Tables& tables, const TemplateBody& body, Change& change) {
  WorkflowTemplate workflow{body.name, 1, body.operations};
  if (workflow.name == built_in_template().name) {
    return fail(ErrorCode::already_exists, cat(workflow.name, " is built in; choose another name"), "/name");
  }
  LOCKSTEP_TRY(planned(workflow));
  if (const WorkflowTemplate* before = tables.processing.templates.find(workflow.name)) {
    workflow.version = before->version + 1;
  }
  change.put(tables.processing.templates, workflow.name, workflow);
  change.event("workflow_added", workflow.name, workflow);
  return workflow;
}

Status remove_template(const Tables& tables, const std::string& name, Change& change) {
  if (name == built_in_template().name) {
    return fail(ErrorCode::invalid_transition, cat(name, " is built in and stays"));
  }
  const WorkflowTemplate workflow = LOCKSTEP_TRY(template_named(tables, name));
  change.erase(tables.processing.templates, name);
  change.event("workflow_removed", name, workflow);
  return {};
}

TemplatesView templates_view(const Tables& tables, Rev rev) {
  TemplatesView view{rev, {{built_in_template(), true, planned(built_in_template()).value()}}};
  for (const auto& [name, entry] : tables.processing.templates.entries()) {
    view.workflows.push_back({entry.row, false, planned(entry.row).value_or(std::vector<std::string>{})});
  }
  return view;
}

Result<WorkflowRun> run_workflow(const Tables& tables, const AcceptSettings& settings, const std::string& name,
                                 const GenerateBody& body, const std::string& session, const RequestId& request,
                                 std::uint64_t seed, WallTime now, Change& change) {
  const WorkflowTemplate workflow = LOCKSTEP_TRY(template_named(tables, name));
  if (body.session_id) {
    return fail(ErrorCode::invalid_argument, "session_id: a workflow runs as a session of its own", "/session_id");
  }
  WorkflowRun run;
  run.request = LOCKSTEP_TRY(read_generation(tables, settings, body, request, seed));
  std::vector<PipelineOperation> pipeline;
  for (const TemplateOperation& each : LOCKSTEP_TRY(in_order(workflow))) {
    const std::string_view wanted = each.operation == "upscale" ? "upscaling" : "safety_check";
    if (each.operation == "generate" || each.operation == "save") continue;
    const auto found = std::ranges::find(run.request.pipeline, wanted, &PipelineOperation::operation);
    if (found == run.request.pipeline.end()) {
      return fail(ErrorCode::not_found, cat("workflow ", name, " has the operation ", each.name, "; no model for ",
                                            wanted, " is registered"));
    }
    pipeline.push_back(*found);
  }
  run.request.pipeline = pipeline;
  run.request.session_id = session;
  run.session = LOCKSTEP_TRY(read_session(tables, {}, session, now));
  run.session.workflow_template = name;
  run.session.expected_operations = run.request.n * static_cast<std::uint32_t>(workflow.operations.size());
  run.session.requests.push_back(request);
  change.put(tables.processing.sessions, session, run.session);
  change.event("session_created", session, run.session);
  accept(tables, run.request, now, change);
  return run;
}

}  // namespace lockstep
