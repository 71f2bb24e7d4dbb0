#include "operations/requests.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

OpenRequest asked(const std::string& id, std::int64_t at = 0) {
  OpenRequest request;
  request.worker_id = WorkerId("w0");
  request.incarnation = Incarnation{1};
  request.request_type = "memory_allocation_request";
  request.request_id = id;
  request.fingerprint = "aa";
  request.answer_within = seconds(5);
  request.asked = WallTime{at};
  return request;
}

void apply(RequestTables& tables, Change& change) {
  ASSERT_TRUE(apply_changes(tables, change.take(WallTime{})).has_value());
}

class Requests : public testing::Test {
 protected:
  void answer(const OpenRequest& request, RequestAnswer with) {
    put_answer(tables, request, std::move(with), change);
    apply(tables, change);
  }
  RequestTables tables;
  Change change;
};

// §2.2: the same request again is the same request; another body under its id is not.
TEST_F(Requests, a_repetition_is_told_from_a_conflict) {
  const OpenRequest first = asked("r1");
  EXPECT_EQ(arrival_of(tables, first), RequestArrival::fresh);
  answer(first, queued(first, WallTime{1000}, "the device is full"));
  EXPECT_EQ(arrival_of(tables, first), RequestArrival::repeated);
  OpenRequest other = first;
  other.fingerprint = "bb";
  EXPECT_EQ(arrival_of(tables, other), RequestArrival::conflicting);
}

TEST_F(Requests, dependents_start_after_the_grant_only) {
  const OpenRequest request = asked("r1");
  EXPECT_FALSE(may_start_dependents(tables, request_key(request)));
  answer(request, queued(request, WallTime{1000}, "the device is full"));
  EXPECT_FALSE(may_start_dependents(tables, request_key(request)));
  EXPECT_EQ(open_requests(tables).size(), 1u);
  answer(request, granted(request, GrantedReservation{AllocationId("a"), 1_GiB, {}}));
  EXPECT_TRUE(may_start_dependents(tables, request_key(request)));
  EXPECT_TRUE(open_requests(tables).empty());
}

TEST_F(Requests, a_final_answer_is_never_replaced) {
  const OpenRequest request = asked("r1");
  answer(request, denied(request, "no"));
  EXPECT_DEATH(put_answer(tables, request, granted(request, {}), change), "");
}

TEST_F(Requests, the_requesters_end_closes_its_requests_and_no_others) {
  const OpenRequest mine = asked("r1");
  OpenRequest other = asked("r1");
  other.worker_id = WorkerId("w1");
  answer(mine, queued(mine, {}, ""));
  answer(other, denied(other, "no"));
  close_requests(tables, WorkerId("w0"), change);
  apply(tables, change);
  EXPECT_FALSE(tables.requests.contains(request_key(mine)));
  EXPECT_TRUE(tables.requests.contains(request_key(other)));
}

// Answers are kept to be given again, and not for ever: the oldest answered one goes, an open one never does.
TEST_F(Requests, the_oldest_answers_are_forgotten) {
  const OpenRequest waits = asked("waits", -1);
  answer(waits, queued(waits, {}, ""));
  for (std::size_t i = 0; i <= answers_kept; ++i) {
    const OpenRequest each = asked(cat("r", i), static_cast<std::int64_t>(i));
    answer(each, denied(each, "no"));
  }
  EXPECT_EQ(tables.requests.size(), answers_kept + 1);
  EXPECT_FALSE(tables.requests.contains(request_key(asked("r0"))));
  EXPECT_TRUE(tables.requests.contains(request_key(waits)));
}

}  // namespace
}  // namespace lockstep
