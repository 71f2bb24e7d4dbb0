#include "domains/device/routing.h"

#include <gtest/gtest.h>

namespace lockstep::device {
namespace {

constexpr RouteTarget idle{true, true, 0};
constexpr RouteTarget busy{true, true, 9};
constexpr RouteTarget sick{true, false, 0};
constexpr RouteTarget lost{false, false, 0};

// §2.1, the routing table as printed.
TEST(DeviceRouting, the_printed_table_names_the_devices_of_each_work) {
  Routing routing;
  routing.routing_table.items = {{"inference_primary", DeviceId("gpu_0")},
                                 {"inference_secondary", DeviceId("gpu_1")},
                                 {"postprocessing", DeviceId("gpu_1")}};
  EXPECT_TRUE(check_roles(routing.routing_table).has_value());
  EXPECT_EQ(route_of(&routing, "inference").primary, DeviceId("gpu_0"));
  EXPECT_EQ(route_of(&routing, "inference").secondary, DeviceId("gpu_1"));
  EXPECT_EQ(route_of(&routing, "postprocessing").primary, DeviceId("gpu_1"));
  EXPECT_FALSE(route_of(&routing, "postprocessing").secondary.has_value());
  EXPECT_TRUE(route_of(nullptr, "inference").any());
}

TEST(DeviceRouting, a_role_that_is_none_is_refused_with_the_roles) {
  const Status status = check_roles({{{"inference_tertiary", DeviceId("gpu_0")}}});
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("inference_secondary"), std::string::npos);
}

TEST(DeviceRouting, work_goes_to_the_primary) {
  EXPECT_EQ(choose(idle, idle), Choice::primary);
  EXPECT_EQ(choose(busy, lost), Choice::primary);
  EXPECT_EQ(choose(sick, lost), Choice::primary);  // degraded is better than nobody
}

TEST(DeviceRouting, work_goes_to_the_secondary_when_the_primary_is_lost_sick_or_later) {
  EXPECT_EQ(choose(lost, busy), Choice::secondary);
  EXPECT_EQ(choose(sick, busy), Choice::secondary);
  EXPECT_EQ(choose(busy, idle), Choice::secondary);
  EXPECT_EQ(choose(busy, RouteTarget{true, true, 20}), Choice::primary);
  EXPECT_EQ(choose(lost, lost), Choice::nobody);
}

}  // namespace
}  // namespace lockstep::device
