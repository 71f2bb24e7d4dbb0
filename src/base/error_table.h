#pragma once

// One table of errors: name, HTTP status, when to retry, sentence. Names, HTTP mapping, Python exceptions and
// docs derive from it. A new code only where some caller would act differently.

#include <cstdint>
#include <string_view>

namespace lockstep {

enum class Retry : std::uint8_t { never, after_read, after_wait, after_check };

#define LOCKSTEP_ERROR_CODES(X)                                                 \
  X(invalid_argument, 400, never, "the request is malformed")                   \
  X(not_owner, 403, never, "the writer does not own this fact")                 \
  X(safety_blocked, 400, never, "the safety check refused the result")          \
  X(not_yet, 501, never, "this version does not do that yet")                   \
  X(not_found, 404, never, "no such thing")                                     \
  X(already_exists, 409, never, "the id is taken by something else")            \
  X(invalid_transition, 409, never, "this state does not accept this event")    \
  X(stale_version, 409, after_read, "the fact changed since it was read")       \
  X(cancelled, 409, never, "it was cancelled")                                  \
  X(too_large, 413, never, "the request is larger than the limit")              \
  X(resource_exhausted, 429, after_wait, "not enough is free")                  \
  X(poisonous, 500, never, "it killed its worker too often and was set aside")  \
  X(unavailable, 503, after_wait, "the worker is not reachable")                \
  X(deadline_exceeded, 504, after_check, "too late; the effect did not happen") \
  X(outcome_unknown, 504, after_check, "it may or may not have happened")       \
  X(data_loss, 500, never, "stored bytes are not the bytes that were written")  \
  X(internal, 500, never, "a defect in lockstep")

enum class ErrorCode : std::uint8_t {
#define LOCKSTEP_X(name, status, retry, sentence) name,
  LOCKSTEP_ERROR_CODES(LOCKSTEP_X)
#undef LOCKSTEP_X
};

struct ErrorFacts {
  std::string_view name;
  int http_status;
  Retry retry;
  std::string_view sentence;
};

constexpr ErrorFacts error_facts(ErrorCode code) {
  switch (code) {
#define LOCKSTEP_X(name, status, retry, sentence) \
  case ErrorCode::name: return {#name, status, Retry::retry, sentence};
    LOCKSTEP_ERROR_CODES(LOCKSTEP_X)
#undef LOCKSTEP_X
  }
  return {"internal", 500, Retry::never, "a defect in lockstep"};
}

/// The code with this name; `internal` when there is none (a newer or broken peer).
constexpr ErrorCode error_code_named(std::string_view name) {
#define LOCKSTEP_X(code, status, retry, sentence) \
  if (name == #code) return ErrorCode::code;
  LOCKSTEP_ERROR_CODES(LOCKSTEP_X)
#undef LOCKSTEP_X
  return ErrorCode::internal;
}

}  // namespace lockstep
