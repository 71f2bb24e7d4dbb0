#include "server/recovered_events.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "state/commit.h"

namespace lockstep::server {
namespace {

Record record(std::uint64_t lsn, bool with_event) {
  Commit commit{Rev{lsn}, WallTime{5}, {}, {}};
  if (with_event) commit.events.push_back({cat("e", lsn), "s", {}});
  return {Lsn{lsn}, encode(commit)};
}

TEST(RecoveredEvents, past_and_replayed_records_are_one_sequence) {
  const Recovered recovered{Lsn{7}, {}, {record(8, true)}, {record(5, true), record(6, false), record(7, true)}};
  const auto all = recovered_events(recovered, 100);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(all->floor, Rev{4});
  ASSERT_EQ(all->events.size(), 3u);
  EXPECT_EQ(all->events[0].rev, Rev{5});
  EXPECT_EQ(all->events[1].events[0].type, "e7");
  EXPECT_EQ(all->events[2].rev, Rev{8});
  const auto newest = recovered_events(recovered, 2);
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->floor, Rev{6});
  EXPECT_EQ(newest->events.size(), 2u);
}

TEST(RecoveredEvents, an_empty_journal_has_no_gap) {
  const auto none = recovered_events(Recovered{}, 100);
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(none->floor, Rev{0});
}

TEST(RecoveredEvents, a_record_that_is_no_commit_is_data_loss) {
  const auto broken = recovered_events({Lsn{1}, {}, {}, {{Lsn{1}, "x"}}}, 100);
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().code, ErrorCode::data_loss);
}

}  // namespace
}  // namespace lockstep::server
