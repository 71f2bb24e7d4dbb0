#include "env/frame_reader.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

Frame frame(std::uint64_t sequence, std::string body) {
  Frame out;
  out.header.sequence = sequence;
  out.header.type = 8;
  out.header.body_length = static_cast<std::uint32_t>(body.size());
  out.body = std::move(body);
  return out;
}

std::string bytes_of(const Frame& frame) {
  const auto header = encode_header(frame.header);
  return std::string(header.begin(), header.end()) + frame.body;
}

std::vector<Frame> all_of(FrameReader& reader) {
  std::vector<Frame> out;
  for (;;) {
    auto next = reader.next();
    EXPECT_TRUE(next.has_value());
    if (!next || !*next) return out;
    out.push_back(**std::move(next));
  }
}

const std::vector<Frame> three{frame(1, "{}"), frame(2, ""), frame(3, std::string(300, 'x'))};

std::string three_as_bytes() {
  std::string out;
  for (const Frame& each : three) out += bytes_of(each);
  return out;
}

void expect_three(const std::vector<Frame>& found) {
  ASSERT_EQ(found.size(), three.size());
  for (std::size_t i = 0; i < three.size(); ++i) {
    EXPECT_EQ(found[i].header, three[i].header);
    EXPECT_EQ(found[i].body, three[i].body);
  }
}

TEST(FrameReader, pieces_of_every_size_give_the_same_frames) {
  const std::string bytes = three_as_bytes();
  for (std::size_t size = 1; size <= bytes.size(); ++size) {
    FrameReader reader;
    std::vector<Frame> found;
    for (std::size_t at = 0; at < bytes.size(); at += size) {
      reader.take(std::string_view(bytes).substr(at, size));
      std::ranges::move(all_of(reader), std::back_inserter(found));
    }
    expect_three(found);
    EXPECT_TRUE(reader.empty());
  }
}

// A link that is cut at any byte gives the whole frames before the cut and nothing of the one that it cut.
TEST(FrameReader, a_stream_that_ends_anywhere_gives_whole_frames_only) {
  const std::string bytes = three_as_bytes();
  for (std::size_t end = 0; end < bytes.size(); ++end) {
    FrameReader reader;
    reader.take(std::string_view(bytes).substr(0, end));
    std::size_t whole = 0;
    for (std::size_t size = 0; whole < three.size(); ++whole) {
      size += frame_header_size + three[whole].body.size();
      if (size > end) break;
    }
    EXPECT_EQ(all_of(reader).size(), whole) << end;
  }
}

TEST(FrameReader, a_header_is_seen_before_its_body) {
  FrameReader reader;
  const std::string bytes = bytes_of(three[2]);
  reader.take(std::string_view(bytes).substr(0, frame_header_size - 1));
  EXPECT_FALSE(reader.header().value().has_value());
  reader.take(std::string_view(bytes).substr(frame_header_size - 1, 1));
  ASSERT_TRUE(reader.header().value().has_value());
  EXPECT_EQ(*reader.header().value(), three[2].header);
  EXPECT_FALSE(reader.next().value().has_value());
}

TEST(FrameReader, a_broken_header_is_an_error) {
  FrameReader reader;
  reader.take(std::string(frame_header_size, '\xff'));
  EXPECT_FALSE(reader.next().has_value());
  EXPECT_FALSE(reader.header().has_value());
}

}  // namespace
}  // namespace lockstep
