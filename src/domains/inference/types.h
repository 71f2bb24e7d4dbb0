#pragma once

// Inference domain, §1.5: runs of a model for a job.

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/inference/lifecycle.h"
#include "events/inference_events.h"

namespace lockstep::inference {

/// One attempt of one job on one incarnation. It is kept after its end, for the request's view, and replaced by the
/// next attempt.
struct Run {
  std::string run_id;  // the request_id of the inference messages
  JobId job_id;
  std::uint32_t attempt = 0;
  ModelId model_id;
  WorkerId worker_id;
  Incarnation incarnation;
  RunState state = RunState::executing;
  std::optional<ResultMetadata> result;
};
BOOST_DESCRIBE_STRUCT(Run, (), (run_id, job_id, attempt, model_id, worker_id, incarnation, state, result))

/// Of one model, as a person set it; domains/inference/tuning.h.
struct Tuning {
  std::optional<Scheduler> scheduler;
  std::optional<std::uint32_t> default_steps;
  std::optional<double> default_guidance_scale;
  std::optional<std::uint32_t> max_steps;
};
BOOST_DESCRIBE_STRUCT(Tuning, (), (scheduler, default_steps, default_guidance_scale, max_steps))

}  // namespace lockstep::inference
