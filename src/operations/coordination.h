#pragma once

// What operations of a session depend on (§1.4, §2.4 cross_domain_coordination): a worker asks for a model and memory,
// and the operations it names start only after that was granted. The newest request about an operation counts; one that
// was denied fails what depends on it, with the reason.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "operations/tables.h"

namespace lockstep {

struct Dependency {
  std::vector<std::string> operations;
  RequestOutcome outcome = RequestOutcome::queued;
  std::string reason;
  WallTime asked;
};
/// By session, then by the request's key. Derived from the table of requests.
using Dependencies = std::map<std::string, std::map<std::string, Dependency>>;

/// A row of operations.requests has changed; nullptr: it is gone.
void note_dependency(Dependencies& all, const std::string& key, const OpenRequest* row);

/// Whether anything that a job does can be meant by this name: "inference", "postprocessing", with or without a word
/// behind an underscore, an operation of a pipeline, or an operation of a workflow that does the same.
bool names_an_operation(std::string_view name);

/// What the job's next operation waits for, or was denied; nullptr when nothing holds it.
const Dependency* holds_back(const Dependencies& all, const processing::Request& request, const processing::Job& job);

}  // namespace lockstep
