#include "events/message_types.h"

#include <algorithm>
#include <array>

#include "events/device_events.h"
#include "events/inference_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"
#include "events/processing_events.h"
#include "events/transaction_documents.h"

namespace lockstep {

namespace {

constexpr std::string_view event_key = "event_type";

template <class Message>
Result<CheckedMessage> check(std::string_view text) {
  CheckedMessage checked;
  const auto message = json::from_text<Message>(text, &checked.notes);
  if (!message) return message.error();
  if constexpr (requires { message->check(); }) LOCKSTEP_TRY_STATUS(message->check());
  checked.canonical = json::to_text(*message);
  return checked;
}

template <class Message>
void describe(json::Schema& schema, std::string_view section) {
  schema.add_document<Message>(section);
}

template <class Message>
constexpr MessageType event(std::string_view section) {
  return {Message::event_type, section, event_key, Message::event_type, check<Message>, describe<Message>};
}

/// word: what stands under the key; empty where the key alone tells. Most documents have their name there.
template <class Message>
constexpr MessageType document(std::string_view section, std::string_view key,
                               std::string_view word = Message::document_name) {
  return {Message::document_name, section, key, word, check<Message>, describe<Message>};
}

constexpr std::array types{
    event<DeviceConfigUpdate>("§2.1"),
    event<DeviceRoutingUpdate>("§2.1"),
    event<DeviceHealthUpdate>("§2.1"),
    event<DeviceCapabilityDiscovered>("§2.1"),
    event<SystemMemoryAllocated>("§2.2"),
    event<MemoryPolicyUpdate>("§2.2"),
    event<VramUsageUpdate>("§2.2"),
    event<MemoryAllocationRequest>("§2.2"),
    event<ModelLoadRequest>("§2.3"),
    event<ModelCacheUpdate>("§2.3"),
    event<ModelLoadingProgress>("§2.3"),
    event<ModelRuntimeUpdate>("§2.3"),
    event<ProcessingSessionCreated>("§2.4"),
    event<SessionControlCommand>("§2.4"),
    event<SessionProgressUpdate>("§2.4"),
    event<CrossDomainCoordination>("§2.4"),
    event<InferenceRequest>("§2.5"),
    event<InferenceOrchestration>("§2.5"),
    event<InferenceProgress>("§2.5"),
    event<InferenceCompleted>("§2.5"),
    event<PostprocessingRequest>("§2.6"),
    event<SafetyPolicyUpdate>("§2.6"),
    event<PostprocessingProgress>("§2.6"),
    event<PostprocessingCompleted>("§2.6"),
    document<AtomicDeviceMemory>("§3.1", "operation_type"),
    document<DeviceMemoryConsistency>("§3.1", "validation_type"),
    document<AtomicModelMemory>("§3.2", "operation_type"),
    document<ModelLoadingStateUpdate>("§3.2", "synchronization_event"),
    document<ModelLoadingFailure>("§3.2", "rollback_scenario"),
    document<AtomicProcessingInference>("§3.3", "operation_type"),
    document<SessionInferenceSync>("§3.3", "coordination_event"),
    document<AtomicInferencePostprocessing>("§3.4", "operation_type"),
    document<InferencePostprocessingFlow>("§3.4", "transaction_flow"),
    document<TransactionVoting>("§3.5", "coordinator_decision", ""),
    document<TransactionOutcome>("§3.5", "coordinator_command", ""),
    document<Saga>("§3.6", "saga_type", ""),
    document<PartialAllocationFailure>("§3.8", "failure_scenario"),
};

std::string all_names() {
  std::string names;
  for (const MessageType& type : types) names += cat(names.empty() ? "" : ", ", type.name);
  return names;
}

/// The words that may stand under a key that tells.
std::string words_under(std::string_view key) {
  std::string words;
  for (const MessageType& type : types) {
    if (type.recognised_by == key) words += cat(words.empty() ? "" : ", ", type.says);
  }
  return words;
}

/// The key, as it stands in the table, if it tells messages apart; else empty.
std::string_view key_named(std::string_view key) {
  const auto place = std::ranges::find(types, key, &MessageType::recognised_by);
  return place == types.end() ? std::string_view() : place->recognised_by;
}

std::string all_recognising_keys() {
  std::string keys;
  for (auto type = types.begin(); type != types.end(); ++type) {
    const auto same = [&](const MessageType& earlier) { return earlier.recognised_by == type->recognised_by; };
    if (std::any_of(types.begin(), type, same)) continue;
    keys += cat(keys.empty() ? "" : ", ", "\"", type->recognised_by, "\"");
  }
  return keys;
}

}  // namespace

constexpr std::size_t events_count = 24;
static_assert(types[events_count - 1].section == "§2.6" && types[events_count].section == "§3.1");

std::span<const MessageType> message_types() { return std::span(types).first(events_count); }
std::span<const MessageType> transaction_documents() { return std::span(types).subspan(events_count); }
std::span<const MessageType> all_documents() { return types; }

Result<const MessageType*> message_type_named(std::string_view name) {
  const auto place = std::ranges::find(types, name, &MessageType::name);
  if (place != types.end()) return &*place;
  return fail(ErrorCode::not_found, cat("\"", shortened(name), "\" is none of: ", all_names()));
}

Result<const MessageType*> recognise_message(std::string_view text) {
  json::Reader in(text);
  if (!in.open_object()) return in.error();
  const MessageType* found = nullptr;
  std::string_view key;
  while (in.next_key(key)) {
    const std::string_view by = key_named(key);
    if (by.empty() || found != nullptr) {
      if (!in.skip()) return in.error();
      continue;
    }
    const auto any = std::ranges::find_if(
        types, [&](const MessageType& type) { return type.recognised_by == by && type.says.empty(); });
    if (any != types.end()) {  // the key alone tells
      found = &*any;
      if (!in.skip()) return in.error();
      continue;
    }
    std::string_view word;
    if (!in.text(word)) return in.error();
    const auto type = std::ranges::find_if(
        types, [&](const MessageType& each) { return each.recognised_by == by && each.says == word; });
    if (type == types.end()) {
      in.fail_here(cat("\"", shortened(word), "\" is none of: ", words_under(by)));
      return in.error();
    }
    if (by == event_key) return &*type;  // the rest is read when it is checked
    found = &*type;
  }
  if (in.failed()) return in.error();
  if (found != nullptr) return found;
  in.fail_at_key(event_key, cat("no key says which message this is; expected ", all_recognising_keys()));
  return in.error();
}

}  // namespace lockstep
