#pragma once

// Workers that do not start: when one is set aside, what people are told, and what a job waits for meanwhile (§3.7).
// The rule itself is liveness/breaker.h.

#include <string>

#include "domains/processing/types.h"
#include "operations/views.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// Counts a death that was not ours, and sets the worker aside when it was one too many.
/// how      why it ended            last_words  the end of its log
/// returns  how long to wait before the next start
Nanos wait_after_death(Turn& turn, const WorkerRecord& worker, const std::string& how, const std::string& last_words);
/// It is ready: its failed starts are forgotten.
void forget_deaths(Turn& turn, const WorkerId& worker);

/// "worker_0 is set aside: ..."; empty when it is not.
std::string set_aside_because(const Turn& turn, const WorkerId& worker);
/// Why nothing can be done at all: every configured worker is set aside; empty otherwise.
std::string nobody_works_because(const Turn& turn);
/// What a job waits for, in a sentence; empty when it does not wait.
std::string waits_for(const Turn& turn, const processing::Job& job);

/// The view of a worker with what is volatile: its task, its failed starts, when the next one is.
WorkerView worker_view(const Turn& turn, const WorkerRecord& worker);

}  // namespace lockstep
