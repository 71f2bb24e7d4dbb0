#include "propagation/outbox.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

class OutboxTest : public testing::Test {
 protected:
  template <class Body>
  void decide(const WorkerId& worker, const Body& body) {
    const std::string key = delivery_key(worker, Body::event_type, subject_of(body));
    store(intend(tables.deliveries.find(key), worker, body, Rev{++rev}));
  }
  void store(const Delivery& row) {
    const FactChange change{"propagation.deliveries", delivery_key(row.worker_id, row.type, row.subject),
                            RawJson{json::to_text(row)}};
    ASSERT_TRUE(tables.deliveries.apply(change, Rev{rev}).has_value());
  }
  std::string due(const WorkerId& worker, Incarnation incarnation = Incarnation{1}) const {
    std::string out;
    for (const Delivery* row : pending(tables, worker, incarnation)) {
      out += cat(out.empty() ? "" : " ", row->type, ":", row->subject, "@", row->intended_rev.value);
    }
    return out;
  }
  Status answer(const WorkerId& worker, const std::string& type, const std::string& subject, std::uint64_t of_rev,
                AppliedOutcome outcome = AppliedOutcome::applied, Incarnation incarnation = Incarnation{1}) {
    const auto rows = confirm(tables, worker, incarnation, {of_rev, {{type, subject, of_rev, outcome, "because"}}});
    if (!rows) return rows.error();
    for (const Delivery& row : *rows) store(row);
    return {};
  }
  static DeviceConfigUpdate limit(std::uint32_t watts) {
    DeviceConfigUpdate update;
    update.device_id = DeviceId("gpu_0");
    update.changes.power_limit = watts;
    return update;
  }
  const Delivery& row(const std::string& key) const { return tables.deliveries.at(key); }

  PropagationTables tables;
  std::uint64_t rev = 0;
  WorkerId w0{"w0"};
  WorkerId w1{"w1"};
  std::string config = "device_config_update";
};

// §2.1 step 5: intended, then confirmed; both can be read with their revs.
TEST_F(OutboxTest, intended_becomes_confirmed) {
  decide(w0, limit(350));
  EXPECT_EQ(due(w0), "device_config_update:gpu_0@1");
  EXPECT_EQ(row("w0/device_config_update/gpu_0").confirmed.text, "{}");
  ASSERT_TRUE(answer(w0, config, "gpu_0", 1).has_value());
  EXPECT_EQ(due(w0), "");
  const Delivery& after = row("w0/device_config_update/gpu_0");
  EXPECT_EQ(after.confirmed.text, after.intended.text);
  EXPECT_EQ(after.confirmed_rev, Rev{1});
}

TEST_F(OutboxTest, rejected_stays_visible_and_is_not_sent_again) {
  decide(w0, limit(350));
  ASSERT_TRUE(answer(w0, config, "gpu_0", 1, AppliedOutcome::rejected).has_value());
  EXPECT_EQ(due(w0), "");
  EXPECT_EQ(row("w0/device_config_update/gpu_0").outcome, AppliedOutcome::rejected);
  EXPECT_EQ(row("w0/device_config_update/gpu_0").reason, "because");
  EXPECT_EQ(row("w0/device_config_update/gpu_0").confirmed.text, "{}") << "intended and confirmed stay apart";
}

TEST_F(OutboxTest, an_answer_about_an_older_value_does_not_confirm_the_newer) {
  decide(w0, limit(350));
  decide(w0, limit(300));
  ASSERT_TRUE(answer(w0, config, "gpu_0", 1).has_value());
  EXPECT_EQ(due(w0), "device_config_update:gpu_0@2");
  ASSERT_TRUE(answer(w0, config, "gpu_0", 2).has_value());
  ASSERT_TRUE(answer(w0, config, "gpu_0", 1, AppliedOutcome::rejected).has_value());
  EXPECT_EQ(row("w0/device_config_update/gpu_0").outcome, AppliedOutcome::applied) << "a late answer changes nothing";
}

TEST_F(OutboxTest, an_answer_about_what_was_never_sent_is_refused) {
  decide(w0, limit(350));
  EXPECT_EQ(answer(w0, config, "gpu_1", 1).error().pointer, "/results/0");
  EXPECT_EQ(answer(w0, config, "gpu_0", 2).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(answer(w0, config, "gpu_0", 0).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(answer(w1, config, "gpu_0", 1).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(due(w0), "device_config_update:gpu_0@1");
}

// §2.1 step 4: only those whom it concerns; one that does not answer delays nobody.
TEST_F(OutboxTest, each_worker_has_its_own_list) {
  decide(w0, limit(350));
  decide(w1, limit(200));
  decide(WorkerId("w10"), limit(100));
  EXPECT_EQ(due(w1), "device_config_update:gpu_0@2");
  ASSERT_TRUE(answer(w1, config, "gpu_0", 2).has_value());
  EXPECT_EQ(due(w1), "");
  EXPECT_EQ(due(w0), "device_config_update:gpu_0@1");
}

// Design §6: list at rev, then watch from rev + 1.
TEST_F(OutboxTest, a_new_process_is_told_everything_and_a_returning_one_what_it_lacks) {
  decide(w0, limit(350));
  decide(w0, MemoryPolicyUpdate{});
  ASSERT_TRUE(answer(w0, config, "gpu_0", 1).has_value());
  EXPECT_EQ(due(w0, Incarnation{1}), "memory_policy_update:@2");
  EXPECT_EQ(due(w0, Incarnation{2}), "device_config_update:gpu_0@1 memory_policy_update:@2");
  const auto rows = pending(tables, w0, Incarnation{2});
  const StateChanges list = message_of(rows, true);
  EXPECT_EQ(list.rev, 2u);
  EXPECT_TRUE(list.snapshot);
  ASSERT_EQ(list.events.size(), 2u);
  EXPECT_EQ(list.events[0].rev, 1u);
}

// What says everything replaces what was before; what says only what is different is summed up, so that a worker that
// missed the first of two is told both.
TEST_F(OutboxTest, differences_are_summed_up_and_whole_messages_replace) {
  decide(w0, limit(350));
  DeviceConfigUpdate profile;
  profile.device_id = DeviceId("gpu_0");
  profile.changes.optimization_profile = "efficiency";
  decide(w0, profile);
  const auto whole = json::from_text<DeviceConfigUpdate>(row("w0/device_config_update/gpu_0").intended.text);
  ASSERT_TRUE(whole.has_value());
  EXPECT_FALSE(whole->changes.power_limit.has_value()) << "a setting that is absent is the default again";
  EXPECT_EQ(whole->changes.optimization_profile, "efficiency");

  ModelCacheUpdate first;
  first.cache_changes.added = {ModelId("a"), ModelId("b")};
  ModelCacheUpdate second;
  second.cache_changes.added = {ModelId("c")};
  second.cache_changes.removed = {ModelId("a")};
  const ModelCacheUpdate sum = merged(first, second);
  EXPECT_EQ(sum.cache_changes.added, (std::vector{ModelId("b"), ModelId("c")}));
  EXPECT_EQ(sum.cache_changes.removed, (std::vector{ModelId("a")}));
  ModelCacheUpdate third;
  third.cache_changes.added = {ModelId("a")};
  EXPECT_EQ(merged(sum, third).cache_changes.removed, std::vector<ModelId>{});
}

TEST(Redelivery, waits_longer_each_time_and_ends) {
  EXPECT_EQ(redelivery_wait(1), seconds(2));
  EXPECT_EQ(redelivery_wait(2), seconds(4));
  EXPECT_EQ(redelivery_wait(5), seconds(30));
  EXPECT_EQ(redelivery_wait(redeliveries_max), seconds(30));
  EXPECT_EQ(redelivery_wait(redeliveries_max + 1), std::nullopt);
}

}  // namespace
}  // namespace lockstep
