// The wall clock is for people and records, never for deadlines or identity (design §6): set back an hour in the middle
// of everything, it changes what records say and nothing else.

#include <set>

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

TEST(Design_6_clock, set_back_an_hour_it_breaks_no_deadline_no_id_and_no_order) {
  constexpr std::int64_t hour_ms = 3'600'000;
  Stage stage(settings_of(1));
  stage.wall_offset_ms = 1'800'000'000'000;
  stage.ready();
  stage.generate(1, false);
  stage.until_inferring();
  stage.wall_offset_ms -= hour_ms;
  stage.generate(2, false);

  // Every deadline that is armed from now on is on the monotonic clock: near, and not an hour away.
  const std::size_t before = stage.released.size();
  stage.now += seconds(1);
  stage.say("w0", FrameType::heartbeat, Heartbeat{});
  stage.finish_image();
  std::size_t armed = 0;
  for (std::size_t i = before; i < stage.released.size(); ++i) {
    const auto* timer = std::get_if<out::ArmTimer>(&stage.released[i].what);
    if (timer == nullptr) continue;
    ++armed;
    EXPECT_GE(timer->deadline, stage.now) << timer->name;
    EXPECT_LE(timer->deadline, stage.now + seconds(600)) << timer->name;
  }
  EXPECT_GT(armed, 0u);

  // The first ran to its end, and what was measured is not negative.
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), processing::JobStage::completed);
  const auto& counters = stage.machine.live().counters;
  EXPECT_EQ(counters.job_seconds.count(), 1u);
  EXPECT_GE(counters.job_seconds.sum(), 0);

  // Ids and revs know no clock; times say what the clock said.
  std::set<RequestId> ids;
  for (const auto& [key, entry] : stage.tables().processing.requests.entries()) ids.insert(entry.row.request_id);
  EXPECT_EQ(ids.size(), 2u);
  Rev last;
  bool went_back = false;
  WallTime last_time;
  for (const out::Publish& each : stage.all<out::Publish>()) {
    if (each.rev.value == 0) continue;
    EXPECT_GT(each.rev, last);
    last = each.rev;
    went_back = went_back || each.time < last_time;
    last_time = each.time;
  }
  EXPECT_TRUE(went_back);

  // And the journal of it replays to the same state, under a clock that is still wrong.
  Orchestrator again(settings_of(1));
  ASSERT_TRUE(again.recover(Recovered{Lsn{}, {}, stage.journal}).has_value());
  EXPECT_EQ(again.digest(), stage.machine.digest());
  Stage second(settings_of(1), stage.journal);
  second.wall_offset_ms = 1'800'000'000'000 - 2 * hour_ms;
  second.ready();
  second.generate(3, false);
  EXPECT_TRUE(second.tables().processing.requests.contains("req_000002_000001"));
}

}  // namespace
}  // namespace lockstep::design
