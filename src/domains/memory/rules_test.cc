#include "domains/memory/rules.h"

#include <gtest/gtest.h>

namespace lockstep::memory {
namespace {

const DeviceId gpu("gpu_0");

void put(Tables& tables, const std::string& id, const DeviceId& device, Bytes bytes, AllocationState state) {
  const Allocation row{AllocationId(id), device, WorkerId("w0"), Incarnation{1}, bytes, "model", ModelId("m"), state};
  ASSERT_TRUE(tables.allocations.apply({"memory.allocations", id, RawJson{json::to_text(row)}}, Rev{1}));
}

// §3.1: bytes count until they are proven free, whatever their state.
TEST(MemoryRules, bytes_that_are_being_released_still_count) {
  Tables tables;
  put(tables, "a", gpu, 1_GiB, AllocationState::allocated);
  put(tables, "b", gpu, 2_GiB, AllocationState::in_use);
  put(tables, "c", gpu, 3_GiB, AllocationState::releasing);
  put(tables, "d", DeviceId("gpu_1"), 4_GiB, AllocationState::in_use);
  EXPECT_EQ(allocated_on(tables, gpu), 6_GiB);
}

TEST(MemoryRules, the_last_free_byte_can_be_reserved_and_not_one_more) {
  Tables tables;
  put(tables, "a", gpu, 2_GiB, AllocationState::in_use);
  EXPECT_TRUE(may_reserve(tables, gpu, 8_GiB, 1_GiB, 5_GiB).has_value());
  const Status status = may_reserve(tables, gpu, 8_GiB, 1_GiB, 5_GiB + Bytes{1});
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(status.error().message.find("device gpu_0 has 5GB of 8GB free"), std::string::npos);
}

TEST(MemoryRules, over_budget_means_nothing_is_free) {
  Tables tables;
  put(tables, "a", gpu, 9_GiB, AllocationState::in_use);
  EXPECT_FALSE(may_reserve(tables, gpu, 8_GiB, Bytes{}, Bytes{1}).has_value());
}

}  // namespace
}  // namespace lockstep::memory
