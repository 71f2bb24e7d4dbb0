#pragma once

// Whether a device can be used: it is online while its worker is ready, and in error while its health is critical and
// its policy says to stop then (§1.1).

#include <boost/describe.hpp>

#include "base/transition_table.h"

namespace lockstep::device {

enum class Availability { offline, online, error };
BOOST_DESCRIBE_ENUM(Availability, offline, online, error)

enum class DeviceEvent { worker_ready, worker_gone, health_critical, health_recovered };
BOOST_DESCRIBE_ENUM(DeviceEvent, worker_ready, worker_gone, health_critical, health_recovered)

inline constexpr auto device_lifecycle = transition_table<Availability, DeviceEvent>({
    {Availability::offline, DeviceEvent::worker_ready, Availability::online},
    {Availability::online, DeviceEvent::worker_ready, Availability::online},  // it is back over a new link
    {Availability::online, DeviceEvent::worker_gone, Availability::offline},
    // A worker that dies before it was ready leaves the device as it was.
    {Availability::offline, DeviceEvent::worker_gone, Availability::offline},
    {Availability::online, DeviceEvent::health_critical, Availability::error},
    {Availability::error, DeviceEvent::health_recovered, Availability::online},
    {Availability::error, DeviceEvent::worker_ready, Availability::error},  // a new link does not cool it
    {Availability::error, DeviceEvent::worker_gone, Availability::offline},
});
static_assert(device_lifecycle.deterministic());

}  // namespace lockstep::device
