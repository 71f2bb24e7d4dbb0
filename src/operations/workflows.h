#pragma once

// Workflow templates (§1.4): a graph of operations as data, checked whole before anything of it runs, and run as one
// session through the path of every image: inference, the pipeline in order, storing.

#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/result.h"
#include "operations/accept.h"
#include "operations/tables.h"

namespace lockstep {

/// The body of POST /api/v1/workflows.
struct TemplateBody {
  std::string name;
  std::vector<processing::TemplateOperation> operations;
};
BOOST_DESCRIBE_STRUCT(TemplateBody, (), (name, operations))

struct TemplateView {
  processing::WorkflowTemplate workflow;
  bool built_in = false;
  std::vector<std::string> order;  // the names, each behind its inputs
};
BOOST_DESCRIBE_STRUCT(TemplateView, (), (workflow, built_in, order))

struct TemplatesView {
  Rev rev;
  std::vector<TemplateView> workflows;
};
BOOST_DESCRIBE_STRUCT(TemplatesView, (), (rev, workflows))

/// "sdxl_generation_pipeline": generate, upscale, safety, save.
processing::WorkflowTemplate built_in_template();

/// The names in an order in which each stands behind its inputs, ties in the order of the template.
/// invalid_argument names the place: an unknown operation, a name twice, an input that nothing makes, a cycle, an
/// operation whose result nobody uses, not exactly one generate at the start and one save at the end, or a save whose
/// image went through no safety step.
Result<std::vector<std::string>> planned(const processing::WorkflowTemplate& workflow);

/// not_found when there is none.
Result<processing::WorkflowTemplate> template_named(const Tables& tables, const std::string& name);

Result<processing::WorkflowTemplate> add_template(const Tables& tables, const TemplateBody& body, Change& change);
/// invalid_transition for the built-in one.
Status remove_template(const Tables& tables, const std::string& name, Change& change);

TemplatesView templates_view(const Tables& tables, Rev rev);

struct WorkflowRun {
  processing::Session session;
  processing::Request request;
};
/// A session with one request whose pipeline is the template's, in planned order. Both are put into the change.
Result<WorkflowRun> run_workflow(const Tables& tables, const AcceptSettings& settings, const std::string& name,
                                 const GenerateBody& body, const std::string& session, const RequestId& request,
                                 std::uint64_t seed, WallTime now, Change& change);

}  // namespace lockstep
