#pragma once

// Which device does which work (§1.1 selection and routing, §2.1 device_routing_update). A role of the table is a kind
// of work with a rank: "inference_primary", "inference_secondary", "postprocessing" (its primary), ... Work goes to
// the primary; to the secondary when the primary is unhealthy or lost, or would start it later.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "events/device_events.h"

namespace lockstep::device {

/// confirmed_by: the newest revision that each worker has taken in.
struct Routing {
  std::uint64_t revision = 0;
  Ordered<DeviceId> routing_table;
  std::map<std::string, std::uint64_t> confirmed_by;
};
BOOST_DESCRIBE_STRUCT(Routing, (), (revision, routing_table, confirmed_by))

/// The body of PUT /api/v1/routing: the whole table. An empty one is no table.
struct RoutingBody {
  Ordered<DeviceId> routing_table;
};
BOOST_DESCRIBE_STRUCT(RoutingBody, (), (routing_table))

/// The devices of one kind of work; both empty when the table does not name it: then any device may do it.
struct Route {
  std::optional<DeviceId> primary;
  std::optional<DeviceId> secondary;
  bool any() const { return !primary && !secondary; }  // any device
};

Route route_of(const Routing* routing, std::string_view work);

/// invalid_argument for a role that is none, naming the roles.
Status check_roles(const Ordered<DeviceId>& table);

/// A device as a route sees it. starts_in: seconds until it could begin, by what was measured; 0 for an idle one.
struct RouteTarget {
  bool usable = false;   // there, and not stopped by its health
  bool healthy = false;  // its level is ok
  double starts_in = 0;
};

enum class Choice { primary, secondary, nobody };

/// Where the work goes now. A target that is not in the table is not usable.
Choice choose(const RouteTarget& primary, const RouteTarget& secondary);

}  // namespace lockstep::device
