#include "propagation/event_facts.h"

#include <array>
#include <utility>

#include <boost/mp11.hpp>

#include "events/json_read.h"
#include "events/message_types.h"
#include "propagation/facts.h"

namespace lockstep {

namespace {

using enum Domain;

// The end of a worker concerns everybody who has work there; the rest of ours tells how work goes.
constexpr std::array<std::pair<std::string_view, Domain>, 12> beginnings{{
    {"worker_", device},
    {"device_", device},
    {"memory_", memory},
    {"model_", model},
    {"request_", processing},
    {"session_", processing},
    {"inference_", inference},
    {"postprocessing_", postprocessing},
    {"output_", postprocessing},
    {"workflow_", processing},
    {"state_", device},  // what a worker was told and confirmed
    {"transaction_", model},
}};
constexpr std::array<std::string_view, 3> urgent{"worker_gone", "worker_dying", "model_broken"};

std::optional<Domain> domain_of(std::string_view type) {
  for (const MessageType& each : message_types()) {
    if (each.name != type || !each.section.starts_with("§2.")) continue;
    return static_cast<Domain>(each.section.back() - '1');  // §2.1 to §2.6, in the order of the domains
  }
  // A document of a transaction is about two or more; it goes where the thing is that it is begun for.
  constexpr std::array<std::pair<std::string_view, Domain>, 7> of_transactions{{{"§3.1", device},
                                                                              {"§3.2", model},
                                                                              {"§3.3", processing},
                                                                              {"§3.4", inference},
                                                                              {"§3.5", model},
                                                                              {"§3.6", processing},
                                                                              {"§3.8", memory}}};
  for (const MessageType& each : transaction_documents()) {
    if (each.name != type) continue;
    for (const auto& [section, domain] : of_transactions) {
      if (each.section == section) return domain;
    }
  }
  for (const auto& [beginning, domain] : beginnings) {
    if (type.starts_with(beginning)) return domain;
  }
  return std::nullopt;
}

/// How urgent a change of level is depends on the levels, and who wrote the fact has said so in it.
struct SaysUrgency {
  Urgency urgency = Urgency::p1_high;
};
BOOST_DESCRIBE_STRUCT(SaysUrgency, (), (urgency))
constexpr std::array<std::string_view, 2> say_urgency{"device_health_changed", "memory_pressure_changed"};

template <class Body>
Condition condition_in(std::string_view body) {
  const auto read = json::from_text<Body>(body);
  return read ? condition_of(*read) : Condition::always;
}

Condition condition_in(FrameType type, std::string_view body) {
  switch (type) {
    case FrameType::device_health_update: return condition_in<DeviceHealthUpdate>(body);
    case FrameType::vram_usage_update: return condition_in<VramUsageUpdate>(body);
    case FrameType::model_loading_progress: return condition_in<ModelLoadingProgress>(body);
    default: return Condition::always;
  }
}

}  // namespace

EventFacts event_facts(std::string_view type, std::string_view body) {
  EventFacts facts;
  facts.domain = domain_of(type);
  for (const std::string_view each : urgent) {
    if (type == each) facts.urgency = Urgency::p1_high;
  }
  for (const std::string_view each : say_urgency) {
    if (type != each) continue;
    if (const auto said = json::from_text<SaysUrgency>(body)) facts.urgency = said->urgency;
  }
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([&](auto each) {
    if (type == each.name) facts.urgency = urgency_row(each.value, condition_in(each.value, body)).lane;
  });
  return facts;
}

}  // namespace lockstep
