#pragma once

// Processing domain, §1.4: what people asked for (a request: n images), the work for it (a job: one image), and what
// holds requests together (a session).

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
#include "events/processing_events.h"

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

/// size        how many images of a request may be made at once
/// vram_limit  what that may take of the device's memory, its models included; absent: what the device has
struct Batch {
  std::uint32_t size = 1;
  std::optional<SizeText> vram_limit;
};
BOOST_DESCRIBE_STRUCT(Batch, (), (size, vram_limit))

/// What becomes of the other images of a request when one fails a quality gate (§3.4).
/// keep_delivered  no further one is made; what was delivered stays
/// cascade_rollback  the same, and what was delivered goes
/// finish_others   they are made as if nothing had happened
enum class ErrorHandling { keep_delivered, cascade_rollback, finish_others };
BOOST_DESCRIBE_ENUM(ErrorHandling, keep_delivered, cascade_rollback, finish_others)

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
  std::optional<std::string> session_id;         // the session it belongs to
  std::optional<std::vector<std::string>> tags;  // of its outputs
  std::optional<OutputRequirements> output;      // absent: a PNG
  std::optional<Batch> batch;                    // absent: each image by itself
  std::optional<ErrorHandling> error_handling;   // absent: keep_delivered
};
BOOST_DESCRIBE_STRUCT(Request, (),
                      (request_id, kind, state, n, inference, pipeline, source, created, finished, failure, session_id,
                       tags, output, batch, error_handling))

/// Whose work goes first when several sessions wait: the first by this order, then by AllocationPriority.
enum class SessionClass { critical, interactive, batch, background };
BOOST_DESCRIBE_ENUM(SessionClass, critical, interactive, batch, background)

/// One operation of a workflow, by a name of its own; `inputs` are the names it needs the results of.
struct TemplateOperation {
  std::string name;
  std::string operation;  // "generate", "upscale", "safety", "save"
  std::vector<std::string> inputs;
};
BOOST_DESCRIBE_STRUCT(TemplateOperation, (), (name, operation, inputs))

/// A workflow as data: a graph without cycles from one "generate" to one "save". version rises with every change.
struct WorkflowTemplate {
  std::string name;
  std::uint32_t version = 1;
  std::vector<TemplateOperation> operations;
};
BOOST_DESCRIBE_STRUCT(WorkflowTemplate, (), (name, version, operations))

/// Limits that are not set are absent: none of them has a silent default.
/// max_memory           of what one operation of it needs on its device, and what was granted for it there
/// gpu_allocation       the devices its operations may use; empty: any
/// operation_timeout    for one run on a worker
/// session_timeout      from its start; `deadline` is its end on the wall clock, armed again after a restart
/// expected_operations  it completes by itself when so many are done; absent: when somebody says so
struct Session {
  std::string session_id;
  SessionState state = SessionState::created;
  SessionClass session_class = SessionClass::interactive;
  AllocationPriority priority = AllocationPriority::normal;
  std::string workflow_template;  // empty: its requests come from outside
  std::optional<SizeText> max_memory;
  std::vector<DeviceId> gpu_allocation;
  std::optional<DurationText> operation_timeout;
  std::optional<DurationText> session_timeout;
  std::optional<std::uint32_t> expected_operations;
  std::vector<std::string> depends_on;  // sessions that must have completed
  std::vector<RequestId> requests;
  std::string pause_reason;
  std::optional<std::string> resume_condition;
  WallTime created;
  std::optional<WallTime> started;
  std::optional<WallTime> deadline;
  std::optional<WallTime> finished;
  std::optional<Failure> failure;
};
BOOST_DESCRIBE_STRUCT(Session, (),
                      (session_id, state, session_class, priority, workflow_template, max_memory, gpu_allocation,
                       operation_timeout, session_timeout, expected_operations, depends_on, requests, pause_reason,
                       resume_condition, created, started, deadline, finished, failure))

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
  std::optional<WallTime> deadline;  // of the run that was dispatched last, where its session limits one
};
BOOST_DESCRIBE_STRUCT(Job, (),
                      (job_id, request_id, index, stage, attempt, deaths, load_failures, worker_id, failure, deadline))

}  // namespace lockstep::processing
