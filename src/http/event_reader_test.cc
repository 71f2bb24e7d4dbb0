#include "http/event_reader.h"

#include <gtest/gtest.h>

namespace lockstep::http {
namespace {

const std::string stream =
    "retry: 2000\n\n: keep-alive\n\nid: 7\nevent: a\ndata: {\"x\":1}\n\nevent: b\r\ndata:one\r\ndata: two\r\n\r\n";

void expect_both(EventReader& reader) {
  const auto first = reader.next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->id, "7");
  EXPECT_EQ(first->type, "a");
  EXPECT_EQ(first->data, "{\"x\":1}");
  const auto second = reader.next();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->id, "");
  EXPECT_EQ(second->type, "b");
  EXPECT_EQ(second->data, "one\ntwo");
  EXPECT_FALSE(reader.next());
}

TEST(HttpEventReader, comments_and_hints_are_no_events) {
  EventReader reader;
  reader.add(stream);
  expect_both(reader);
}

TEST(HttpEventReader, pieces_may_end_anywhere) {
  EventReader reader;
  for (const char c : stream) reader.add(std::string_view(&c, 1));
  expect_both(reader);
}

TEST(HttpEventReader, half_an_event_is_none) {
  EventReader reader;
  reader.add("event: a\ndata: 1\n");
  EXPECT_FALSE(reader.next());
  reader.add("\n");
  EXPECT_TRUE(reader.next());
}

// The place to come back to moves with what was read, never ahead of it; a place alone is no event.
TEST(HttpEventReader, the_last_id_follows_what_was_read) {
  EventReader reader;
  reader.add("retry: 2000\nid: 3\n\nevent: a\ndata: 1\n\nid: 5\nevent: b\ndata: 1\n\n: keep-alive\nid: 9\n\n");
  EXPECT_EQ(reader.last_id(), "");
  EXPECT_EQ(reader.next()->type, "a");
  EXPECT_EQ(reader.last_id(), "3");
  EXPECT_EQ(reader.next()->type, "b");
  EXPECT_EQ(reader.last_id(), "5");
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.last_id(), "9");
}

}  // namespace
}  // namespace lockstep::http
