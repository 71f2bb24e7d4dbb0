#include "events/processing_events.h"

#include "base/text.h"

namespace lockstep {

namespace {

constexpr std::size_t id_bytes_max = 128;
constexpr std::size_t dependents_max = 16;

}  // namespace

std::string coordination_id(const CrossDomainCoordination& message) {
  if (message.request_id) return *message.request_id;
  std::string id = message.session_id;
  for (std::size_t i = 0; i < message.dependent_operations.size(); ++i) {
    id += cat(i == 0 ? "/" : "+", message.dependent_operations[i]);
  }
  return id;
}

Status check(const CrossDomainCoordination& message) {
  const auto bad = [](std::string_view field, std::string text) {
    return fail(ErrorCode::invalid_argument, std::move(text), cat("/", field));
  };
  if (message.session_id.empty()) return bad("session_id", "session_id is empty; it must name a session");
  if (message.dependent_operations.size() > dependents_max) {
    return bad("dependent_operations", cat("dependent_operations has ", message.dependent_operations.size(),
                                           " names; the limit is ", dependents_max));
  }
  const std::string id = coordination_id(message);
  if (id.empty() || id.size() > id_bytes_max) {
    return bad("request_id", cat("request_id has ", id.size(), " bytes; it must have 1 to ", id_bytes_max));
  }
  const CoordinationRequest& wish = message.coordination_request;
  if (!wish.requires_model_loading && !wish.requires_memory_allocation) {
    return bad("coordination_request",
               "coordination_request requires nothing; it needs requires_model_loading or requires_memory_allocation");
  }
  if (wish.requires_model_loading && wish.requires_model_loading->empty()) {
    return bad("coordination_request/requires_model_loading", "requires_model_loading is empty");
  }
  if (!wish.requires_memory_allocation) return {};
  const auto bytes = wish.requires_memory_allocation->bytes();
  if (!bytes) return bad("coordination_request/requires_memory_allocation", bytes.error().message);
  if (bytes->value > 0) return {};
  return bad("coordination_request/requires_memory_allocation",
             cat("requires_memory_allocation is ", wish.requires_memory_allocation->text, "; it must be above 0"));
}

}  // namespace lockstep
