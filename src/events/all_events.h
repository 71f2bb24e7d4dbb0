#pragma once

// The 24 events of §2.1-2.6 as one list, for code that does the same with each of them.

#include <string_view>
#include <type_traits>

#include <boost/describe.hpp>
#include <boost/mp11.hpp>

#include "events/device_events.h"
#include "events/inference_events.h"
#include "events/link_messages.h"
#include "events/memory_events.h"
#include "events/model_events.h"
#include "events/postprocessing_events.h"
#include "events/processing_events.h"

namespace lockstep {

/// In the order of the specification.
using AllEvents = boost::mp11::mp_list<
    DeviceConfigUpdate, DeviceRoutingUpdate, DeviceHealthUpdate, DeviceCapabilityDiscovered, SystemMemoryAllocated,
    MemoryPolicyUpdate, VramUsageUpdate, MemoryAllocationRequest, ModelLoadRequest, ModelCacheUpdate,
    ModelLoadingProgress, ModelRuntimeUpdate, ProcessingSessionCreated, SessionControlCommand, SessionProgressUpdate,
    CrossDomainCoordination, InferenceRequest, InferenceOrchestration, InferenceProgress, InferenceCompleted,
    PostprocessingRequest, SafetyPolicyUpdate, PostprocessingProgress, PostprocessingCompleted>;

/// The frame that an event crosses in: the one of its name.
template <class Event>
consteval FrameType frame_type_of() {
  FrameType found{};
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([&](auto each) {
    if (std::string_view(each.name) == Event::event_type) found = each.value;
  });
  return found;
}

/// Calls `use` with the std::type_identity of the event; false, and no call, for a frame that carries none.
template <class Use>
bool with_event(FrameType type, Use&& use) {
  bool called = false;
  boost::mp11::mp_for_each<boost::mp11::mp_transform<std::type_identity, AllEvents>>(
      [&]<class Event>(std::type_identity<Event> event) {
        static_assert(frame_type_of<Event>() != FrameType{}, "an event without a frame type");
        if (type != frame_type_of<Event>()) return;
        called = true;
        use(event);
      });
  return called;
}

}  // namespace lockstep
