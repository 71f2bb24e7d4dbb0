#pragma once

// Processing domain, §1.4: what people asked for (a request: n images) and the work for it (a job: one image).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/processing/lifecycle.h"
#include "events/inference_events.h"
#include "events/postprocessing_events.h"

namespace lockstep::processing {

/// generation: prompt -> images. check: a picture that exists -> a safety verdict.
enum class RequestKind { generation, check };
BOOST_DESCRIBE_ENUM(RequestKind, generation, check)

enum class RequestState { accepted, completed, failed };
BOOST_DESCRIBE_ENUM(RequestState, accepted, completed, failed)

/// What failed, in the words of base/error_table.h.
struct Failure {
  std::string code;
  std::string message;
};
BOOST_DESCRIBE_STRUCT(Failure, (), (code, message))

struct Request {
  RequestId request_id;
  RequestKind kind = RequestKind::generation;
  RequestState state = RequestState::accepted;
  std::uint32_t n = 1;
  InferenceRequest inference;               // of image 0; image i has seed + i
  std::vector<PipelineOperation> pipeline;  // after inference, in order
  std::optional<ImageBuffer> source;        // check: the picture, stored by content
  WallTime created;
  WallTime finished;
  std::optional<Failure> failure;
};
BOOST_DESCRIBE_STRUCT(Request, (),
                      (request_id, kind, state, n, inference, pipeline, source, created, finished, failure))

/// attempt rises with every dispatch of any kind; a report of an older one is dropped. deaths counts the workers that
/// died while they ran this job.
struct Job {
  JobId job_id;
  RequestId request_id;
  std::uint32_t index = 0;  // which image of the request
  JobStage stage = JobStage::queued;
  std::uint32_t attempt = 0;
  std::uint32_t deaths = 0;
  std::uint32_t load_failures = 0;
  WorkerId worker_id;  // who runs it now; empty when nobody
  std::optional<Failure> failure;
};
BOOST_DESCRIBE_STRUCT(Job, (), (job_id, request_id, index, stage, attempt, deaths, load_failures, worker_id, failure))

}  // namespace lockstep::processing
