#include "transactions/saga.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

using Steps = std::vector<std::uint32_t>;

constexpr StepDefinition journey_steps[] = {{"hotel", "book", "cancel"},
                                            {"flight", "reserve", "release"},
                                            {"bank", "pay", "", StepClass::pivot},
                                            {"post", "send_tickets", "", StepClass::retriable}};
constexpr SagaDefinition journey{"journey", 2, journey_steps};
static_assert(well_formed(journey));

constexpr StepDefinition no_undo[] = {{"hotel", "book", ""}};
constexpr StepDefinition undo_of_pivot[] = {{"bank", "pay", "refund", StepClass::pivot}};
constexpr StepDefinition two_pivots[] = {{"bank", "pay", "", StepClass::pivot}, {"bank", "pay", "", StepClass::pivot}};
constexpr StepDefinition back_after_pivot[] = {{"bank", "pay", "", StepClass::pivot}, {"hotel", "book", "cancel"}};
constexpr StepDefinition retriable_without_pivot[] = {{"post", "send", "", StepClass::retriable}};
static_assert(!well_formed(SagaDefinition{"x", 1, no_undo}));
static_assert(!well_formed(SagaDefinition{"x", 1, undo_of_pivot}));
static_assert(!well_formed(SagaDefinition{"x", 1, two_pivots}));
static_assert(!well_formed(SagaDefinition{"x", 1, back_after_pivot}));
static_assert(!well_formed(SagaDefinition{"x", 1, retriable_without_pivot}));
static_assert(!well_formed(SagaDefinition{"x", 0, journey_steps}));
static_assert(!well_formed(SagaDefinition{"x", 1, {}}));

SagaRecord record(std::size_t due) {
  SagaRecord out;
  out.saga_id = "saga_tx_1_1";
  out.definition = "journey";
  out.version = 2;
  out.transaction_id = TransactionId("tx_1_1");
  for (std::size_t i = 0; i < due; ++i) out.due.push_back({2, "release", std::string(1, static_cast<char>('a' + i))});
  return out;
}

TEST(Saga, what_has_an_intent_is_compensated_in_reverse_and_nothing_else) {
  EXPECT_EQ(to_compensate(journey, 0, 0), Steps{});
  EXPECT_EQ(to_compensate(journey, 0, 1), (Steps{1})) << "its outcome is not known";
  EXPECT_EQ(to_compensate(journey, 1, 2), (Steps{2, 1}));
  EXPECT_EQ(to_compensate(journey, 2, 2), (Steps{2, 1}));
}

TEST(Saga, a_pivot_that_failed_leaves_what_came_before_it_and_one_that_is_done_nothing) {
  EXPECT_EQ(to_compensate(journey, 2, 3), (Steps{2, 1}));
  EXPECT_EQ(to_compensate(journey, 3, 3), Steps{});
  EXPECT_EQ(to_compensate(journey, 3, 4), Steps{});
}

TEST(Saga, the_record_goes_on_one_by_one_and_ends_with_the_last) {
  SagaRecord saga = first_not_undone(record(2), "the disk is busy");
  EXPECT_EQ(saga.state, SagaStatus::compensating);
  EXPECT_EQ(saga.attempts, 1u);
  EXPECT_EQ(saga.reason, "the disk is busy");
  saga = first_undone(saga);
  EXPECT_EQ(saga.state, SagaStatus::compensating);
  EXPECT_EQ(saga.due.front().target, "b");
  EXPECT_EQ(saga.attempts, 0u) << "of the next";
  EXPECT_EQ(saga.reason, "");
  EXPECT_EQ(first_undone(saga).state, SagaStatus::compensated);
}

TEST(Saga, the_last_attempt_parks_it_and_a_person_may_try_again) {
  SagaRecord saga = record(1);
  for (std::uint32_t i = 1; i < compensation_attempts_max; ++i) {
    saga = first_not_undone(saga, "read-only");
    ASSERT_EQ(saga.state, SagaStatus::compensating) << i;
  }
  saga = first_not_undone(saga, "read-only");
  EXPECT_EQ(saga.state, SagaStatus::parked);
  EXPECT_EQ(saga.reason, "read-only");
  EXPECT_EQ(saga.due.size(), 1u) << "never dropped";
  EXPECT_EQ(retried(saga).state, SagaStatus::compensating);
  EXPECT_EQ(retried(saga).attempts, 0u);
  EXPECT_EQ(after(saga, SagaEvent::accepted).state, SagaStatus::compensated);
  EXPECT_EQ(after(saga, SagaEvent::undone).state, SagaStatus::compensated) << "what held it is gone";
}

TEST(Saga, an_end_has_no_way_out) {
  for (const auto& row : saga_lifecycle.rows) {
    EXPECT_NE(row.from, SagaStatus::completed);
    EXPECT_NE(row.from, SagaStatus::compensated);
  }
  EXPECT_FALSE(saga_lifecycle.next(SagaStatus::compensating, SagaEvent::accepted).has_value()) << "it is still tried";
  EXPECT_FALSE(saga_lifecycle.next(SagaStatus::compensating, SagaEvent::steps_done).has_value())
      << "never forward again";
}

TEST(Saga, the_waits_double_up_to_a_minute) {
  Nanos all = 0;
  for (std::uint32_t i = 1; i < compensation_attempts_max; ++i) all += compensation_backoff(i);
  EXPECT_EQ(all, seconds(31));
  EXPECT_EQ(compensation_backoff(1), seconds(1));
  EXPECT_EQ(compensation_backoff(6), seconds(32));
  EXPECT_EQ(compensation_backoff(40), seconds(60));
}

TEST(Saga, another_version_is_not_carried_on) {
  EXPECT_TRUE(may_carry_on(record(1), &journey).has_value());
  SagaRecord older = record(1);
  older.version = 1;
  EXPECT_EQ(may_carry_on(older, &journey).error().message,
            "it was begun by version 1 of journey; this program has version 2");
  EXPECT_NE(may_carry_on(record(1), nullptr).error().message.find("does not know"), std::string::npos);
}

}  // namespace
}  // namespace lockstep
