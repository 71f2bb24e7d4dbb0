#pragma once

// Postprocessing domain, §1.6: runs of a pipeline over pixels, verdicts, and the outputs that came of them.

#include <cstdint>
#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/postprocessing/lifecycle.h"
#include "events/postprocessing_events.h"

namespace lockstep::postprocessing {

struct Run {
  std::string run_id;  // the request_id of the postprocessing messages
  JobId job_id;
  std::uint32_t attempt = 0;
  WorkerId worker_id;
  Incarnation incarnation;
  RunState state = RunState::executing;
  std::optional<std::vector<std::string>> operations;  // that ran
  std::optional<FinalResults> results;
};
BOOST_DESCRIBE_STRUCT(Run, (), (run_id, job_id, attempt, worker_id, incarnation, state, operations, results))

/// An image on disk, named by its content.
struct Output {
  JobId job_id;
  ImageBuffer image;
  std::uint64_t seed = 0;
  WallTime created;
  std::optional<std::vector<std::string>> tags;
  std::optional<std::string> review;  // why a person should look at it; absent when nobody has to
};
BOOST_DESCRIBE_STRUCT(Output, (), (job_id, image, seed, created, tags, review))

}  // namespace lockstep::postprocessing
