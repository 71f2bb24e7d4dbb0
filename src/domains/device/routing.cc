#include "domains/device/routing.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace lockstep::device {

namespace {

constexpr std::array<std::string_view, 6> roles{"inference_primary",      "inference_secondary",      "inference",
                                                "postprocessing_primary", "postprocessing_secondary", "postprocessing"};

}  // namespace

Route route_of(const Routing* routing, std::string_view work) {
  Route route;
  if (routing == nullptr) return route;
  const auto named = [&](std::string_view suffix) -> std::optional<DeviceId> {
    const DeviceId* device = routing->routing_table.find(cat(work, suffix));
    return device == nullptr ? std::nullopt : std::optional(*device);
  };
  route.primary = named("_primary");
  if (!route.primary) route.primary = named("");
  route.secondary = named("_secondary");
  return route;
}

Status check_roles(const Ordered<DeviceId>& table) {
  for (const auto& [role, device] : table.items) {
    if (std::ranges::find(roles, role) != roles.end()) continue;
    std::string names;
    for (const std::string_view name : roles) names += cat(names.empty() ? "" : ", ", name);
    return fail(ErrorCode::invalid_argument, cat("\"", shortened(role), "\" is no role; roles are ", names),
                cat("/routing_table/", shortened(role)));
  }
  return {};
}

Choice choose(const RouteTarget& primary, const RouteTarget& secondary) {
  if (!primary.usable) return secondary.usable ? Choice::secondary : Choice::nobody;
  if (!secondary.usable) return Choice::primary;
  if (primary.healthy != secondary.healthy) return primary.healthy ? Choice::primary : Choice::secondary;
  return secondary.starts_in < primary.starts_in ? Choice::secondary : Choice::primary;
}

}  // namespace lockstep::device
