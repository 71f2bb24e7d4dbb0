#pragma once

// What the urgency table needs to know of a message's body: the condition it fulfils, the sender's own word about its
// urgency, and what it is about. One reading for both sides, so that they cannot differ.

#include <algorithm>
#include <optional>
#include <string>

#include "events/device_events.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "propagation/framing.h"
#include "propagation/urgency_table.h"

namespace lockstep {

/// Where nobody set a limit for the device. 90 degrees: where the drivers' own slowdown begins on the cards that we
/// know.
inline constexpr double critical_temperature = 90.0;

/// A device that will be shut off, or that slows itself down so as not to be. The sample carries the limit it was
/// taken under, so that its readers need not know the device's policy of that moment.
inline bool is_critical(const DeviceHealthUpdate& update) {
  const double limit = update.diagnostics ? update.diagnostics->temperature_critical.value_or(critical_temperature)
                                          : critical_temperature;
  if (update.health_metrics.temperature && *update.health_metrics.temperature >= limit) return true;
  if (!update.diagnostics || !update.diagnostics->throttle_reasons) return false;
  return std::ranges::any_of(*update.diagnostics->throttle_reasons, [](const std::string& reason) {
    return reason == "hardware_thermal" || reason == "hardware_slowdown";
  });
}

template <class Body>
Condition condition_of(const Body&) {
  return Condition::always;
}
inline Condition condition_of(const DeviceHealthUpdate& update) {
  return is_critical(update) ? Condition::health_critical : Condition::always;
}
inline Condition condition_of(const VramUsageUpdate& update) {
  return update.pressure_level >= PressureLevel::high ? Condition::pressure_high : Condition::always;
}
inline Condition condition_of(const ModelLoadingProgress& progress) {
  return progress.loading_stage == "loaded" ? Condition::loading_complete : Condition::always;
}

/// Whatever key it stands in; absent where the message has none.
template <class Body>
std::optional<AllocationPriority> word_of(const Body& body) {
  if constexpr (requires { body.propagation_priority; }) return body.propagation_priority;
  if constexpr (requires { body.propagation_urgency; }) return body.propagation_urgency;
  if constexpr (requires { body.priority; }) return body.priority;
  if constexpr (requires { body.coordination_request.coordination_priority; }) {
    return body.coordination_request.coordination_priority;
  }
  return std::nullopt;
}

/// What a body is about; empty when it is about the whole link.
template <class Body>
std::string subject_of(const Body& body) {
  if constexpr (requires { body.device_id.str(); }) return body.device_id.str();
  if constexpr (requires { body.model_id.str(); }) return body.model_id.str();
  if constexpr (requires { body.session_id.size(); }) return body.session_id;
  if constexpr (requires { body.request_id.size(); }) return body.request_id;
  return "";
}

/// lane: from the table, lowered by the sender's word.
struct Placed {
  Urgency lane = Urgency::p2_normal;
  Passage passage;
};

/// Messages of one operation keep their order, and those of one type about one thing.
template <class Body>
Placed place(FrameType type, const Body& body, const std::string& op_id) {
  const UrgencyRow& row = urgency_row(type, condition_of(body));
  const auto word = word_of(body);
  const std::string subject = subject_of(body);
  const std::string about = subject.empty() ? subject : json::enum_name(type) + ":" + subject;
  return {word ? lowered(row.lane, *word) : row.lane, {row.sample ? about : "", op_id.empty() ? about : op_id}};
}

}  // namespace lockstep
