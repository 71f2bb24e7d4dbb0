// §2.7 over a real socket: whatever waits, the most urgent frame leaves next, each lane arrives whole and in order, and
// the link asks for more by itself.

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>

#include <gtest/gtest.h>

#include "base/text.h"
#include "env/real/frame_link.h"
#include "env/real/reactor.h"
#include "events/device_events.h"
#include "propagation/facts.h"
#include "propagation/lanes.h"

namespace lockstep::design {
namespace {

constexpr std::uint64_t many = 20'000;

class Design_2_7_lanes : public testing::Test {
 protected:
  using Queue = Lanes<std::vector<real::SharedFd>>;

  Design_2_7_lanes() {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    receiver_end = real::Fd(ends[1]);
    sender = std::make_unique<real::FrameLink>(reactor, real::Fd(ends[0]),
                                               real::LinkHooks{.frame = [](Frame, std::vector<real::Fd>) {},
                                                               .closed = [](std::string) {},
                                                               .drained = [this] { feed(); }});
  }
  void push(Urgency urgency, const std::string& id, Passage passage = {}) {
    Envelope envelope;
    envelope.id = id;
    envelope.urgency = urgency;
    envelope.body = RawJson{cat("{\"text\":\"", std::string(1000, 'x'), "\"}")};
    ASSERT_TRUE(lanes.push(to_frame(FrameType::heartbeat, envelope, 0), std::move(passage), {}, 0).has_value());
    feed();
  }
  void feed() {
    while (!lanes.empty() && sender->takes_more()) {
      auto leaving = lanes.pop(0);
      if (!leaving) return;
      sender->send(leaving->frame, {});
    }
  }
  /// Reads all `count` frames; the numbers of each lane must be whole.
  void receive(std::size_t count) {
    std::array<std::uint64_t, 4> numbers{};
    real::FrameLink receiver(
        reactor, std::move(receiver_end),
        {.frame =
             [&](Frame frame, std::vector<real::Fd>) {
               EXPECT_EQ(frame.header.sequence, ++numbers[static_cast<std::size_t>(frame.header.urgency)]);
               const auto envelope = from_frame(frame);
               ASSERT_TRUE(envelope.has_value());
               arrived.push_back(envelope->id);
               if (arrived.size() == count) reactor.stop();
             },
         .closed = [&](std::string why) { ADD_FAILURE() << why; }});
    reactor.arm("hang", real::Reactor::now() + seconds(60), [this] {
      ADD_FAILURE() << "only " << arrived.size() << " frames arrived";
      reactor.stop();
    });
    reactor.run();
  }
  std::size_t place_of(const std::string& id) const {
    return static_cast<std::size_t>(std::ranges::find(arrived, id) - arrived.begin());
  }

  real::Reactor reactor;
  LanesCounters counters;
  Queue lanes{counters};
  real::Fd receiver_end;
  std::unique_ptr<real::FrameLink> sender;
  std::vector<std::string> arrived;
};

TEST_F(Design_2_7_lanes, an_alert_overtakes_all_that_waits_and_nothing_is_lost) {
  for (std::uint64_t i = 0; i < many; ++i) push(Urgency::p3_low, cat("low", i));
  const std::uint64_t ahead = many - lanes.frames();  // with the link and the socket: it can not be overtaken
  ASSERT_LE(ahead, 2u) << "what the link and the socket have, an alert waits for";
  push(Urgency::p1_high, "high");
  push(Urgency::p0_critical, "alert");
  receive(many + 2);
  EXPECT_EQ(place_of("alert"), ahead);
  EXPECT_EQ(place_of("high"), ahead + 1);
  EXPECT_EQ(arrived.back(), cat("low", many - 1));
  EXPECT_EQ(counters[3].sent, many);
  EXPECT_EQ(counters[3].conflated, 0u) << "what is no sample is never dropped";
}

TEST_F(Design_2_7_lanes, a_slow_reader_gets_the_newest_of_each_sample) {
  for (std::uint64_t i = 0; i < many; ++i) push(Urgency::p3_low, cat("s", i), {.newer = "s", .order = ""});
  EXPECT_EQ(lanes.frames(), 1u);
  const std::uint64_t left = many - counters[3].conflated;
  receive(left);
  EXPECT_EQ(arrived.back(), cat("s", many - 1));
  EXPECT_GT(counters[3].conflated, many / 2);
}

}  // namespace
}  // namespace lockstep::design
