#pragma once

// Durable transactions over three participants, measured in processes of their own: the device and the memory service,
// which share the orchestrator's journal, and one real worker process that promises what a load needs. §3.5

#include <string>
#include <vector>

#include "base/result.h"
#include "bench/shapes.h"

namespace lockstep::bench {

/// Ours over a link of this form, or its floor: the same hops with bytes of the same sizes, and one sync of a
/// preallocated file.
struct Commits {
  Kind kind = Kind::ours;
  Form form = Form::packed;
};

/// Microseconds from the first step of each transaction to its decision: durable, and on its way to the worker.
Result<std::vector<double>> commit_us(Commits what, Placement placement, int samples, const std::string& file);

/// Transactions a second with `window` of them in flight, each from its first step to the worker's acknowledgement;
/// one_us gets what each took to its decision.
Result<double> commits_per_s(Commits what, int window, int count, const std::string& file, std::vector<double>& one_us);

}  // namespace lockstep::bench
