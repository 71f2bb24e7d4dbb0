#include "propagation/lanes.h"

#include <memory>

#include <gtest/gtest.h>

#include "events/json_read.h"
#include "events/model_events.h"

namespace lockstep {
namespace {

class LanesTest : public testing::Test {
 protected:
  static Frame frame_of(Urgency urgency, const std::string& name) {
    Envelope envelope;
    envelope.id = name;
    envelope.source = {Side::worker, WorkerId("w0"), Incarnation{7}};
    envelope.epoch = Epoch{3};
    envelope.urgency = urgency;
    return to_frame(FrameType::heartbeat, std::move(envelope), 0);
  }
  void push(Urgency urgency, const std::string& name, Passage passage = {}) {
    ASSERT_TRUE(lanes.push(frame_of(urgency, name), std::move(passage), 0, now).has_value());
  }
  /// The names in the order in which they leave.
  std::string all() {
    std::string out;
    while (auto leaving = lanes.pop(now)) {
      const auto envelope = from_frame(leaving->frame);  // header and body must agree after numbering
      EXPECT_TRUE(envelope.has_value()) << leaving->frame.body;
      if (!envelope) break;
      EXPECT_EQ(leaving->frame.header.body_length, leaving->frame.body.size());
      out += cat(out.empty() ? "" : " ", envelope->id, ":", static_cast<int>(envelope->urgency), ".",
                 envelope->sequence);
    }
    return out;
  }

  Nanos now = 0;
  LanesCounters counters;
  Lanes<int> lanes{counters, {.frames_max = 8, .bytes_max = 1u << 20}};
};

// §2.7: P0 overtakes queued P3 traffic; each lane has its own numbers, from 1.
TEST_F(LanesTest, the_most_urgent_leaves_first_and_each_lane_counts) {
  push(Urgency::p3_low, "a");
  push(Urgency::p3_low, "b");
  push(Urgency::p2_normal, "c");
  push(Urgency::p0_critical, "d");
  push(Urgency::p1_high, "e");
  EXPECT_EQ(all(), "d:0.1 e:1.1 c:2.1 a:3.1 b:3.2");
  push(Urgency::p3_low, "f");
  EXPECT_EQ(all(), "f:3.3");
}

TEST_F(LanesTest, newest_sample_wins_and_keeps_its_place) {
  push(Urgency::p3_low, "s1", {.newer = "s"});
  push(Urgency::p3_low, "t1", {.newer = "t"});
  push(Urgency::p3_low, "s2", {.newer = "s"});
  push(Urgency::p3_low, "s3", {.newer = "s"});
  EXPECT_EQ(lanes.frames(), 2u);
  EXPECT_EQ(counters[3].conflated, 2u);
  EXPECT_EQ(all(), "s3:3.1 t1:3.2") << "the last value leaves, without a gap in the numbers";
  push(Urgency::p3_low, "s4", {.newer = "s"});
  EXPECT_EQ(all(), "s4:3.3") << "what has left is not replaced";
}

TEST_F(LanesTest, what_is_no_sample_is_never_dropped) {
  for (int i = 0; i < 8; ++i) push(Urgency::p3_low, cat("n", i));
  const Status over = lanes.push(frame_of(Urgency::p0_critical, "n8"), {}, 0, now);
  ASSERT_FALSE(over.has_value());
  EXPECT_EQ(over.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(over.error().message.find("8 frames"), std::string::npos);
  EXPECT_EQ(lanes.frames(), 8u);
}

TEST_F(LanesTest, the_bytes_are_bounded_too_and_come_back) {
  LanesCounters apart;
  Lanes<int> small(apart, {.frames_max = 100, .bytes_max = 700});
  ASSERT_TRUE(small.push(frame_of(Urgency::p1_high, "a"), {}, 0, 0).has_value());
  ASSERT_TRUE(small.push(frame_of(Urgency::p2_normal, "b"), {.newer = "k"}, 0, 0).has_value());
  ASSERT_TRUE(small.push(frame_of(Urgency::p2_normal, "b2"), {.newer = "k"}, 0, 0).has_value());
  EXPECT_FALSE(small.push(frame_of(Urgency::p1_high, "c"), {}, 0, 0).has_value());
  while (small.pop(0)) {
  }
  EXPECT_EQ(small.bytes(), 0u);
  EXPECT_TRUE(small.push(frame_of(Urgency::p1_high, "c"), {}, 0, 0).has_value());
}

// §2.8, design §6: a frame whose ordering predecessor still waits in a lower lane lifts that one with it.
TEST_F(LanesTest, a_predecessor_is_lifted_with_its_successor) {
  push(Urgency::p2_normal, "other");
  push(Urgency::p2_normal, "request", {.newer = "", .order = "inf:1"});
  push(Urgency::p3_low, "progress", {.newer = "p", .order = "inf:1"});
  push(Urgency::p0_critical, "cancel", {.newer = "", .order = "inf:1"});
  EXPECT_EQ(counters[0].queued, 3u);
  EXPECT_EQ(counters[0].lifted, 2u);
  EXPECT_EQ(all(), "request:0.1 progress:0.2 cancel:0.3 other:2.1");
}

TEST_F(LanesTest, a_newer_sample_does_not_overtake_what_came_between) {
  push(Urgency::p3_low, "s1", {.newer = "s", .order = "k"});
  push(Urgency::p3_low, "n", {.newer = "", .order = "k"});
  push(Urgency::p3_low, "s2", {.newer = "s", .order = "k"});
  EXPECT_EQ(all(), "n:3.1 s2:3.2");
}

TEST_F(LanesTest, a_lifted_sample_gives_way_to_a_newer_one) {
  push(Urgency::p3_low, "s1", {.newer = "s", .order = "k"});
  push(Urgency::p0_critical, "alert", {.newer = "", .order = "k"});
  push(Urgency::p3_low, "s2", {.newer = "s", .order = "k"});
  EXPECT_EQ(all(), "alert:0.1 s2:3.1");
}

TEST_F(LanesTest, counters_tell_what_waits_and_for_how_long) {
  {
    Lanes<std::shared_ptr<int>> other(counters, {});
    const auto cargo = std::make_shared<int>(1);
    ASSERT_TRUE(other.push(frame_of(Urgency::p1_high, "a"), {.newer = "k"}, cargo, 100).has_value());
    ASSERT_TRUE(other.push(frame_of(Urgency::p1_high, "b"), {.newer = "k"}, nullptr, 300).has_value());
    EXPECT_EQ(cargo.use_count(), 1) << "a replaced frame lets go of what rode beside it";
    EXPECT_TRUE(other.pop(milliseconds(5) + 100));
    EXPECT_EQ(counters[1].latency.count(), 1u);
    EXPECT_EQ(counters[1].latency.sum(), milliseconds(5)) << "since the first value waited";
    ASSERT_TRUE(other.push(frame_of(Urgency::p1_high, "c"), {}, nullptr, 300).has_value());
    EXPECT_EQ(counters[1].queued, 1u);
  }
  EXPECT_EQ(counters[1].queued, 0u) << "what a link takes with it waits no more";
  EXPECT_EQ(counters[1].sent, 1u);
}

TEST(Framing, a_packed_frame_is_numbered_in_its_header) {
  Envelope envelope;
  envelope.id = "w1.1";
  envelope.urgency = Urgency::p3_low;
  ModelCacheUpdate update;
  update.cache_changes.added = {ModelId("tiny")};
  Frame frame = to_frame(FrameType::model_cache_update, envelope, update, 0, Form::packed);
  number(frame, Urgency::p1_high, 4711);
  const auto read = from_frame(frame);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->type, "model_cache_update");
  EXPECT_EQ(read->sequence, 4711u);
  EXPECT_EQ(read->urgency, Urgency::p1_high);
  EXPECT_EQ(read_message<ModelCacheUpdate>(*read)->cache_changes.added, update.cache_changes.added);
}

TEST(Framing, a_quote_in_a_text_is_not_taken_for_the_number) {
  Envelope envelope;
  envelope.id = R"(x","sequence":0,"urgency":"p3_low)";
  envelope.urgency = Urgency::p3_low;
  envelope.body = RawJson{R"({"sequence":0,"urgency":"p3_low"})"};
  Frame frame = to_frame(FrameType::heartbeat, envelope, 0);
  number(frame, Urgency::p1_high, 4711);
  const auto read = from_frame(frame);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->id, envelope.id);
  EXPECT_EQ(read->sequence, 4711u);
  EXPECT_EQ(read->urgency, Urgency::p1_high);
  EXPECT_EQ(read->body.text, envelope.body.text);
}

}  // namespace
}  // namespace lockstep
