#include "env/real/frame_link.h"

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"
#include "env/real/memory_file.h"

namespace lockstep::real {
namespace {

Frame frame_of(std::uint64_t sequence, std::string body, std::uint8_t descriptors = 0) {
  Frame frame;
  frame.header.body_length = static_cast<std::uint32_t>(body.size());
  frame.header.type = 4;
  frame.header.descriptors = descriptors;
  frame.header.sequence = sequence;
  frame.body = std::move(body);
  return frame;
}

std::string bytes_of(const Frame& frame) {
  const auto header = encode_header(frame.header);
  return std::string(reinterpret_cast<const char*>(header.data()), header.size()) + frame.body;
}

Fd memory(std::string_view text) {
  auto file = make_sealed("test", Bytes{text.size()}, [&](std::span<std::uint8_t> bytes) -> Status {
    std::memcpy(bytes.data(), text.data(), text.size());
    return {};
  });
  EXPECT_TRUE(file.has_value());
  return file ? *std::move(file) : Fd();
}

std::string text_of(const Fd& file) {
  char text[64] = {};
  const ssize_t got = ::pread(file.get(), text, sizeof text, 0);
  return std::string(text, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
}

class FrameLinkTest : public testing::Test {
 protected:
  FrameLinkTest() {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours = Fd(ends[0]);
    peer = Fd(ends[1]);
  }
  /// A link that keeps what arrives and stops the reactor after `enough` frames or when it closes.
  FrameLink::Hooks keep(std::size_t enough) {
    return {.frame =
                [this, enough](Frame frame, std::vector<Fd> descriptors) {
                  frames.push_back(std::move(frame));
                  for (Fd& each : descriptors) files.push_back(std::move(each));
                  if (frames.size() == enough) reactor.stop();
                },
            .closed =
                [this](std::string why) {
                  closed.push_back(std::move(why));
                  reactor.stop();
                }};
  }
  void run() {
    // Only a hang reaches this.
    reactor.arm("hang", Reactor::now() + seconds(60), [this] {
      ADD_FAILURE() << "nothing happened";
      reactor.stop();
    });
    reactor.run();
  }

  Reactor reactor;
  Fd ours;
  Fd peer;
  std::vector<Frame> frames;
  std::vector<Fd> files;
  std::vector<std::string> closed;
};

TEST_F(FrameLinkTest, frames_arrive_in_order_with_their_descriptors) {
  FrameLink receiver(reactor, std::move(ours), keep(3));
  FrameLink sender(reactor, std::move(peer), {[](Frame, std::vector<Fd>) {}, [](std::string) {}});
  sender.send(frame_of(1, "one", 2), {share(memory("first")), share(memory("second"))});
  sender.send(frame_of(2, ""), {});
  sender.send(frame_of(3, "three", 1), {share(memory("third"))});
  run();
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(frames[0].body, "one");
  EXPECT_EQ(frames[1].header.sequence, 2u);
  EXPECT_EQ(frames[2].body, "three");
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(text_of(files[0]), "first");
  EXPECT_EQ(text_of(files[1]), "second");
  EXPECT_EQ(text_of(files[2]), "third");
  EXPECT_TRUE(closed.empty());
}

TEST_F(FrameLinkTest, a_large_frame_arrives_whole) {
  const std::string body(frame_body_max, 'x');
  FrameLink receiver(reactor, std::move(ours), keep(2));
  FrameLink sender(reactor, std::move(peer), {[](Frame, std::vector<Fd>) {}, [](std::string) {}});
  sender.send(frame_of(1, body), {});
  sender.send(frame_of(2, "after"), {});
  run();
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].body, body);
  EXPECT_EQ(frames[1].body, "after");
}

// A stream has no frames: whatever pieces it comes in, the frames are the same.
TEST_F(FrameLinkTest, frames_that_arrive_byte_by_byte_are_the_same_frames) {
  FrameLink receiver(reactor, std::move(ours), keep(2));
  const std::string bytes = bytes_of(frame_of(1, "hello")) + bytes_of(frame_of(2, "world"));
  std::size_t at = 0;
  std::vector<std::size_t> arrived_after;
  // One byte for each turn of the reactor, so that every read sees one byte more.
  std::function<void()> next = [&] {
    while (arrived_after.size() < frames.size()) arrived_after.push_back(at);
    if (at == bytes.size()) return;
    EXPECT_EQ(::send(peer.get(), bytes.data() + at, 1, 0), 1);
    ++at;
    reactor.post(next);
  };
  reactor.post(next);
  run();
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].body, "hello");
  EXPECT_EQ(frames[1].body, "world");
  for (const std::size_t after : arrived_after) EXPECT_GE(after, frame_header_size + 5);
}

TEST_F(FrameLinkTest, frames_cut_at_any_byte_are_the_same_frames) {
  const std::string bytes = bytes_of(frame_of(1, "hello")) + bytes_of(frame_of(2, "world"));
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    std::array<int, 2> ends{-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    const Fd raw(ends[1]);
    Reactor own;
    std::vector<std::string> bodies;
    FrameLink receiver(own, Fd(ends[0]),
                       {[&](Frame frame, std::vector<Fd>) {
                          bodies.push_back(frame.body);
                          if (bodies.size() == 2) own.stop();
                        },
                        [&](std::string why) {
                          ADD_FAILURE() << why;
                          own.stop();
                        }});
    ASSERT_EQ(::send(raw.get(), bytes.data(), cut, 0), static_cast<ssize_t>(cut));
    own.post([&] {
      ASSERT_EQ(::send(raw.get(), bytes.data() + cut, bytes.size() - cut, 0), static_cast<ssize_t>(bytes.size() - cut));
    });
    own.arm("hang", Reactor::now() + seconds(60), [&] { own.stop(); });
    own.run();
    EXPECT_EQ(bodies, (std::vector<std::string>{"hello", "world"})) << cut;
  }
}

TEST_F(FrameLinkTest, a_broken_header_closes_the_link) {
  FrameLink receiver(reactor, std::move(ours), keep(1));
  Frame frame = frame_of(1, "x");
  frame.header.body_length = frame_body_max + 1;
  const std::string bytes = bytes_of(frame);
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  run();
  EXPECT_TRUE(frames.empty());
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_NE(closed[0].find("the limit is 1048576"), std::string::npos) << closed[0];
}

TEST_F(FrameLinkTest, a_frame_whose_descriptors_do_not_come_closes_the_link) {
  FrameLink receiver(reactor, std::move(ours), keep(1));
  const std::string bytes = bytes_of(frame_of(1, "x", 1));
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  run();
  EXPECT_TRUE(frames.empty());
  EXPECT_EQ(closed, std::vector<std::string>{"descriptors are missing"});
}

TEST_F(FrameLinkTest, a_link_that_is_held_reads_nothing_until_it_is_let_go) {
  FrameLink receiver(reactor, std::move(ours), keep(1));
  receiver.hold(true);
  const std::string bytes = bytes_of(frame_of(1, "later"));
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  int turns = 0;
  std::function<void()> turn = [&] {
    EXPECT_TRUE(frames.empty());
    if (++turns == 100) return receiver.hold(false);
    reactor.post(turn);
  };
  reactor.post(turn);
  run();
  EXPECT_EQ(turns, 100);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].body, "later");
}

// Descriptors without a frame would pile up until the process has none left.
TEST_F(FrameLinkTest, descriptors_that_no_frame_announced_close_the_link) {
  FrameLink receiver(reactor, std::move(ours), keep(9));
  FrameLink sender(reactor, std::move(peer), {[](Frame, std::vector<Fd>) {}, [](std::string) {}});
  Frame frame = frame_of(1, "x", 1);
  frame.header.descriptors = 0;
  sender.send(frame, {share(memory("nobody's"))});
  run();
  EXPECT_TRUE(frames.empty());
  EXPECT_EQ(closed, std::vector<std::string>{"descriptors that no frame announced"});
}

TEST_F(FrameLinkTest, more_descriptors_than_the_frame_that_has_begun_announces_close_the_link) {
  FrameLink receiver(reactor, std::move(ours), keep(9));
  FrameLink sender(reactor, std::move(peer), {[](Frame, std::vector<Fd>) {}, [](std::string) {}});
  Frame frame = frame_of(1, "", 1);
  frame.header.body_length = 100;  // the body never comes
  sender.send(frame, {share(memory("one")), share(memory("two"))});
  run();
  EXPECT_TRUE(frames.empty());
  EXPECT_EQ(closed, std::vector<std::string>{"descriptors that no frame announced"});
}

TEST_F(FrameLinkTest, the_end_of_the_peer_is_reported_once_and_after_what_it_sent) {
  FrameLink receiver(reactor, std::move(ours), keep(99));
  const std::string bytes = bytes_of(frame_of(1, "last words")) + "half a header";
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  peer.reset();
  run();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].body, "last words");
  EXPECT_EQ(closed, std::vector<std::string>{"the other side closed it"});
}

TEST_F(FrameLinkTest, a_link_may_be_destroyed_by_the_frame_it_delivers) {
  std::unique_ptr<FrameLink> receiver;
  std::size_t delivered = 0;
  receiver = std::make_unique<FrameLink>(reactor, std::move(ours),
                                         FrameLink::Hooks{[&](Frame, std::vector<Fd>) {
                                                            ++delivered;
                                                            receiver.reset();
                                                            reactor.stop();
                                                          },
                                                          [](std::string why) { ADD_FAILURE() << why; }});
  const std::string bytes = bytes_of(frame_of(1, "one")) + bytes_of(frame_of(2, "two"));
  ASSERT_EQ(::send(peer.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  run();
  EXPECT_EQ(delivered, 1u);
}

TEST_F(FrameLinkTest, a_peer_that_never_reads_is_given_up) {
  FrameLink sender(reactor, std::move(ours), keep(1));
  const Frame frame = frame_of(1, std::string(frame_body_max, 'x'));
  for (int i = 0; i < 70 && closed.empty(); ++i) sender.send(frame, {});
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_NE(closed[0].find("does not read"), std::string::npos) << closed[0];
}

}  // namespace
}  // namespace lockstep::real
