#include "http/stream_buffer.h"

#include <gtest/gtest.h>

namespace lockstep::http {
namespace {

StreamBuffer::Text text(const std::string& words) { return std::make_shared<const std::string>(words); }

std::string all(StreamBuffer& buffer) {
  std::string out;
  for (const auto& each : buffer.take(100)) out += *each;
  return out;
}

TEST(HttpStreamBuffer, the_oldest_progress_is_dropped_first) {
  StreamBuffer buffer(3);
  EXPECT_TRUE(buffer.push(Rev{1}, 1, text("a")));
  EXPECT_TRUE(buffer.push(Rev{}, 1, text("p")));
  EXPECT_TRUE(buffer.push(Rev{}, 1, text("q")));
  EXPECT_TRUE(buffer.push(Rev{2}, 1, text("b")));
  EXPECT_EQ(buffer.waiting(), 3u);
  EXPECT_EQ(all(buffer), "aqb");
  EXPECT_TRUE(buffer.empty());
}

TEST(HttpStreamBuffer, too_many_durable_events_end_the_stream) {
  StreamBuffer buffer(2);
  EXPECT_TRUE(buffer.push(Rev{1}, 1, text("a")));
  EXPECT_TRUE(buffer.push(Rev{2}, 1, text("b")));
  EXPECT_TRUE(buffer.push(Rev{}, 1, text("p")));  // no room for it, and nothing is missed
  EXPECT_FALSE(buffer.push(Rev{3}, 1, text("c")));
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.waiting(), 0u);
}

TEST(HttpStreamBuffer, a_commit_stays_one_text) {
  StreamBuffer buffer(4);
  EXPECT_TRUE(buffer.push(Rev{1}, 4, text("abcd")));
  EXPECT_FALSE(buffer.push(Rev{2}, 1, text("e")));
}

}  // namespace
}  // namespace lockstep::http
