#include "events/message_types.h"

#include <algorithm>
#include <array>

#include "events/device_events.h"
#include "events/inference_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"
#include "events/processing_events.h"

namespace lockstep {

namespace {

constexpr std::string_view event_key = "event_type";

template <class Message>
Result<CheckedMessage> check(std::string_view text) {
  CheckedMessage checked;
  const auto message = json::from_text<Message>(text, &checked.notes);
  if (!message) return message.error();
  checked.canonical = json::to_text(*message);
  return checked;
}

template <class Message>
void describe(json::Schema& schema, std::string_view section) {
  schema.add_document<Message>(section);
}

template <class Message>
constexpr MessageType event(std::string_view section) {
  return {Message::event_type, section, event_key, check<Message>, describe<Message>};
}

constexpr std::array types{
    event<DeviceConfigUpdate>("§2.1"),       event<DeviceRoutingUpdate>("§2.1"),
    event<DeviceHealthUpdate>("§2.1"),       event<DeviceCapabilityDiscovered>("§2.1"),
    event<SystemMemoryAllocated>("§2.2"),    event<MemoryPolicyUpdate>("§2.2"),
    event<VramUsageUpdate>("§2.2"),          event<MemoryAllocationRequest>("§2.2"),
    event<ModelLoadRequest>("§2.3"),         event<ModelCacheUpdate>("§2.3"),
    event<ModelLoadingProgress>("§2.3"),     event<ModelRuntimeUpdate>("§2.3"),
    event<ProcessingSessionCreated>("§2.4"), event<SessionControlCommand>("§2.4"),
    event<SessionProgressUpdate>("§2.4"),    event<CrossDomainCoordination>("§2.4"),
    event<InferenceRequest>("§2.5"),         event<InferenceOrchestration>("§2.5"),
    event<InferenceProgress>("§2.5"),        event<InferenceCompleted>("§2.5"),
    event<PostprocessingRequest>("§2.6"),    event<SafetyPolicyUpdate>("§2.6"),
    event<PostprocessingProgress>("§2.6"),   event<PostprocessingCompleted>("§2.6"),
};

std::string all_names() {
  std::string names;
  for (const MessageType& type : types) names += cat(names.empty() ? "" : ", ", type.name);
  return names;
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

std::span<const MessageType> message_types() { return types; }

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
    if (key == event_key) {
      std::string_view name;
      if (!in.text(name)) return in.error();
      const auto type = message_type_named(name);
      if (!type) {
        in.fail_here(type.error().message);
        return in.error();
      }
      return *type;  // the rest is read when it is checked
    }
    const auto type = std::ranges::find(types, key, &MessageType::recognised_by);
    if (type != types.end()) found = &*type;
    if (!in.skip()) return in.error();
  }
  if (in.failed()) return in.error();
  if (found != nullptr) return found;
  in.fail_at_key(event_key, cat("no key says which message this is; expected ", all_recognising_keys()));
  return in.error();
}

}  // namespace lockstep
