#include "domains/device/rules.h"

#include <gtest/gtest.h>

namespace lockstep::device {
namespace {

const DeviceId gpu("gpu_0");

Tables with_device(Availability availability) {
  Tables tables;
  const Device row{gpu, WorkerId("w0"), Kind::cuda, 8_GiB, availability, "w0: exit status 1"};
  EXPECT_TRUE(tables.devices.apply({"device.devices", "gpu_0", RawJson{json::to_text(row)}}, Rev{1}));
  return tables;
}

// §3.1, preparation
TEST(DeviceRules, an_online_device_can_be_reserved_once) {
  Tables tables = with_device(Availability::online);
  EXPECT_TRUE(may_reserve(tables, gpu).has_value());
  const Reservation held{gpu, TransactionId("tx_1_1"), "model_loading", ModelId("sdxl")};
  ASSERT_TRUE(tables.reservations.apply({"device.reservations", "gpu_0", RawJson{json::to_text(held)}}, Rev{2}));
  const Status status = may_reserve(tables, gpu);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(status.error().message, "device gpu_0 is reserved for model_loading of sdxl");
}

TEST(DeviceRules, a_device_that_is_not_online_says_why) {
  const Status status = may_reserve(with_device(Availability::offline), gpu);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::unavailable);
  EXPECT_NE(status.error().message.find("w0: exit status 1"), std::string::npos);
}

TEST(DeviceRules, an_unknown_device_is_not_found) {
  EXPECT_EQ(may_reserve(Tables{}, gpu).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace lockstep::device
