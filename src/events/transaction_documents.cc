#include "events/transaction_documents.h"

#include "base/text.h"

namespace lockstep {

namespace {

Status missing(std::string_view list, std::size_t at, std::string_view member, std::string_view step) {
  return fail(ErrorCode::invalid_argument, cat("missing; ", step, " needs it"),
              cat("/", list, "/", at, "/parameters/", member));
}

/// The parameters that the step at this place needs are there.
class Needs {
 public:
  Needs(std::string_view list, std::size_t at, std::string step) : list_(list), at_(at), step_(std::move(step)) {}

  template <class T>
  Needs& member(std::string_view name, const std::optional<T>& value) {
    if (!value && status_) status_ = missing(list_, at_, name, step_);
    return *this;
  }
  Status status() const { return status_; }

 private:
  std::string_view list_;
  std::size_t at_;
  std::string step_;
  Status status_;
};

Status needs(const DeviceMemoryStep& step, std::size_t at) {
  const DeviceMemoryParameters& has = step.parameters;
  Needs all("operations", at, json::enum_name(step.operation));
  if (step.operation == DeviceMemoryOperation::reserve_device) {
    return all.member("operation_type", has.operation_type)
        .member("estimated_duration", has.estimated_duration)
        .status();
  }
  return all.member("allocation_size", has.allocation_size)
      .member("allocation_purpose", has.allocation_purpose)
      .status();
}

Status needs(const ModelMemoryStep& step, std::size_t at) {
  const ModelMemoryParameters& has = step.parameters;
  Needs all("operations", at, json::enum_name(step.operation));
  if (step.operation == ModelMemoryOperation::prepare_model_cache) {
    return all.member("model_id", has.model_id)
        .member("cache_location", has.cache_location)
        .member("required_space", has.required_space)
        .status();
  }
  return all.member("target_device", has.target_device)
      .member("reservation_size", has.reservation_size)
      .member("reservation_purpose", has.reservation_purpose)
      .status();
}

Status needs(const ProcessingInferenceStep& step, std::size_t at) {
  const ProcessingInferenceParameters& has = step.parameters;
  Needs all("atomic_operations", at, json::enum_name(step.operation));
  if (step.operation == ProcessingInferenceOperation::reserve_session_resources) {
    return all.member("session_id", has.session_id).member("resource_requirements", has.resource_requirements).status();
  }
  return all.member("batch_id", has.batch_id)
      .member("model_requirements", has.model_requirements)
      .member("inference_type", has.inference_type)
      .status();
}

Status needs(const InferencePostprocessingStep& step, std::size_t at) {
  const InferencePostprocessingParameters& has = step.parameters;
  Needs all("atomic_operations", at, json::enum_name(step.operation));
  if (step.operation == InferencePostprocessingOperation::execute_with_postprocessing_preparation) {
    return all.member("request_id", has.request_id)
        .member("postprocessing_requirements", has.postprocessing_requirements)
        .status();
  }
  return all.member("pipeline_id", has.pipeline_id)
      .member("expected_input_format", has.expected_input_format)
      .member("processing_sequence", has.processing_sequence)
      .status();
}

template <class Steps>
Status all_needs(const Steps& steps) {
  for (std::size_t i = 0; i < steps.size(); ++i) LOCKSTEP_TRY_STATUS(needs(steps[i], i));
  return {};
}

}  // namespace

Status AtomicDeviceMemory::check() const { return all_needs(operations); }
Status AtomicModelMemory::check() const { return all_needs(operations); }
Status AtomicProcessingInference::check() const { return all_needs(atomic_operations); }
Status AtomicInferencePostprocessing::check() const { return all_needs(atomic_operations); }

Status Saga::check() const {
  for (std::size_t i = 0; i < saga_steps.size(); ++i) {
    if (saga_steps[i].step == i + 1) continue;
    return fail(ErrorCode::invalid_argument, cat(saga_steps[i].step, " where step ", i + 1, " is expected"),
                cat("/saga_steps/", i, "/step"));
  }
  // What is undone stands in the reverse order of the steps: a later effect must not outlive what it rests on.
  std::size_t after = saga_steps.size();
  for (std::size_t i = 0; i < compensation_sequence.size(); ++i) {
    std::size_t at = after;
    while (at > 0 && saga_steps[at - 1].compensation != compensation_sequence[i]) --at;
    if (at == 0) {
      return fail(ErrorCode::invalid_argument,
                  cat("\"", shortened(compensation_sequence[i]),
                      "\" is no compensation of a step, or not in the reverse order of the steps"),
                  cat("/compensation_sequence/", i));
    }
    after = at - 1;
  }
  return {};
}

Status PartialAllocationFailure::check() const {
  // Reverse order: release_<resource> of those that need it, the last one first.
  const std::vector<std::string>& sequence = rollback_coordination.rollback_sequence;
  std::size_t next = 0;
  for (auto each = allocated_resources.rbegin(); each != allocated_resources.rend(); ++each) {
    if (!each->rollback_required) continue;
    const std::string expected = cat("release_", each->resource);
    if (next >= sequence.size() || sequence[next] != expected) {
      return fail(ErrorCode::invalid_argument,
                  cat("\"", expected, "\" is expected here: the reverse of the allocation"),
                  cat("/rollback_coordination/rollback_sequence/", next));
    }
    ++next;
  }
  if (next < sequence.size()) {
    return fail(ErrorCode::invalid_argument,
                cat("\"", shortened(sequence[next]), "\" releases nothing that needs a rollback"),
                cat("/rollback_coordination/rollback_sequence/", next));
  }
  return {};
}

}  // namespace lockstep
