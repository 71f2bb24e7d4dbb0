#include "http/event_feed.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "http/shapes.h"

namespace lockstep::http {
namespace {

out::Publish commit(std::uint64_t rev, const std::vector<std::string>& subjects = {"s"}) {
  out::Publish out{Rev{rev}, WallTime{0}, {}};
  for (const std::string& subject : subjects) out.events.push_back({cat("type_", subject), subject, {}});
  return out;
}

class HttpEventFeed : public testing::Test {
 protected:
  void add(std::uint64_t rev, const std::vector<std::string>& subjects = {"s"}) {
    history.add(std::make_shared<const out::Publish>(commit(rev, subjects)));
  }
  EventFeed feed(const std::string& query, std::optional<std::string_view> id = std::nullopt) {
    const auto read = read_event_query(query, id, history.newest());
    EXPECT_TRUE(read.has_value()) << (read ? "" : read.error().message);
    return {history, read.value_or(EventQuery{}), 4};
  }
  /// What the server does with a publish.
  bool publish(EventFeed& feed, std::uint64_t rev, const std::vector<std::string>& subjects = {"s"}) {
    add(rev, subjects);
    const out::Publish what = commit(rev, subjects);
    return feed.publish(what, text_of(what));
  }
  static StreamBuffer::Text text_of(const out::Publish& what) {
    return std::make_shared<const std::string>(events_text(what.rev, what.time, what.events));
  }
  /// Types and ids of everything there is to take, "a:1 b" for an event b without an id.
  static std::string take(EventFeed& feed, std::size_t texts_max = 2) {
    std::string out;
    for (auto texts = feed.take(texts_max, WallTime{0}); !texts.empty(); texts = feed.take(texts_max, WallTime{0})) {
      for (const auto& text : texts) out += short_form(*text);
    }
    return out;
  }
  static std::string short_form(std::string_view text) {
    std::string out;
    std::string id;
    while (!text.empty()) {
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(line.size() + 1);
      if (line.starts_with("id: ")) id = cat(":", line.substr(4));
      if (line.starts_with("event: ")) out += cat(line.substr(7), id, " ");
      if (line.empty()) id.clear();
    }
    return out;
  }

  EventHistory history{{.events_max = 5, .bytes_max = 1u << 20}};
};

TEST_F(HttpEventFeed, a_new_reader_begins_at_the_present_and_knows_its_place) {
  add(3);
  EventFeed reader = feed("");
  EXPECT_EQ(reader.opening(), "retry: 2000\nid: 3\n\n");
  EXPECT_EQ(take(reader), "");
  EXPECT_TRUE(publish(reader, 4, {"a", "b"}));
  EXPECT_EQ(take(reader), "type_a type_b:4 ");
  EXPECT_FALSE(reader.over());
}

// Resuming at r gives everything above r, once, and then the present: no gap and no double in between.
TEST_F(HttpEventFeed, a_reader_that_comes_back_gets_what_it_missed_and_then_the_present) {
  for (std::uint64_t rev = 1; rev <= 4; ++rev) add(rev);
  EventFeed reader = feed("since=1");
  ASSERT_EQ(reader.take(1, WallTime{0}).size(), 1u);  // rev 2; the rest still comes from the history
  EXPECT_TRUE(publish(reader, 6));
  EXPECT_TRUE(reader.publish({Rev{}, WallTime{0}, {{"progress", "s", {}}}}, text_of(commit(1))));
  EXPECT_EQ(take(reader), "type_s:3 type_s:4 type_s:6 ");
  EXPECT_TRUE(publish(reader, 7));
  EXPECT_EQ(take(reader), "type_s:7 ");
}

TEST_F(HttpEventFeed, the_header_goes_over_the_url) {
  for (std::uint64_t rev = 1; rev <= 4; ++rev) add(rev);
  EventFeed reader = feed("since=1", "3");
  EXPECT_EQ(take(reader), "type_s:4 ");
  EventFeed first_time = feed("since=1", "");
  EXPECT_EQ(take(first_time), "type_s:2 type_s:3 type_s:4 ");
}

TEST_F(HttpEventFeed, what_is_too_old_is_told_before_what_is_left) {
  history.begin_after(Rev{10});
  for (std::uint64_t rev = 11; rev <= 17; ++rev) add(rev);  // two more than fit
  EXPECT_EQ(history.floor(), Rev{12});
  EventFeed reader = feed("since=11");
  const auto texts = reader.take(1, WallTime{0});
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_TRUE(texts[0]->starts_with("id: 12\nevent: compacted\n")) << *texts[0];
  EXPECT_NE(texts[0]->find(R"("body":{"since":11,"through":12})"), std::string::npos) << *texts[0];
  EXPECT_EQ(take(reader), "type_s:13 type_s:14 type_s:15 type_s:16 type_s:17 ");
  EventFeed at_the_edge = feed("since=12");
  EXPECT_EQ(take(at_the_edge), "type_s:13 type_s:14 type_s:15 type_s:16 type_s:17 ");
}

// A reader that is slow while the history is told finds it gone under its feet: that is a gap as well.
TEST_F(HttpEventFeed, history_that_goes_while_it_is_told_is_a_gap) {
  for (std::uint64_t rev = 1; rev <= 4; ++rev) add(rev);
  EventFeed reader = feed("since=0");
  ASSERT_EQ(reader.take(1, WallTime{0}).size(), 1u);
  for (std::uint64_t rev = 5; rev <= 8; ++rev) EXPECT_TRUE(publish(reader, rev));
  EXPECT_EQ(take(reader), "compacted:3 type_s:4 type_s:5 type_s:6 type_s:7 type_s:8 ");
}

TEST_F(HttpEventFeed, a_filter_leaves_out_and_the_place_moves_on) {
  add(1, {"a", "b", "a"});
  add(2, {"b"});
  EventFeed reader = feed("since=0&subject=a");
  EXPECT_EQ(take(reader), "type_a type_a:1 ");
  EXPECT_TRUE(publish(reader, 3, {"b", "a", "b"}));
  EXPECT_FALSE(reader.keep_alive().has_value());  // something is waiting
  EXPECT_EQ(take(reader), "type_a:3 ");
  EXPECT_TRUE(publish(reader, 4, {"b"}));
  EXPECT_EQ(take(reader), "");
  EXPECT_EQ(reader.keep_alive(), ": keep-alive\nid: 4\n\n");
  EventFeed by_type = feed("since=2&type=type_b");
  EXPECT_EQ(take(by_type), "type_b type_b:3 type_b:4 ");
}

TEST_F(HttpEventFeed, without_following_the_history_is_all) {
  add(1);
  add(2, {"a", "b"});
  EventFeed reader = feed("follow=false");
  EXPECT_EQ(take(reader), "type_s:1 type_a type_b:2 history_end:2 ");
  EXPECT_TRUE(reader.over());
}

TEST_F(HttpEventFeed, the_last_events_are_whole_commits) {
  add(1);
  add(2, {"a", "b"});
  add(3);
  for (const auto& [query, expected] :
       {std::pair("last=0", ""), std::pair("last=1", "type_s:3 "), std::pair("last=2", "type_s:3 "),
        std::pair("last=3", "type_a type_b:2 type_s:3 "), std::pair("last=99", "type_s:1 type_a type_b:2 type_s:3 "),
        std::pair("last=1&subject=b", "type_b:2 ")}) {
    EventFeed reader = feed(query);
    EXPECT_EQ(take(reader), expected) << query;
  }
}

TEST_F(HttpEventFeed, a_reader_that_does_not_take_is_over) {
  EventFeed reader = feed("");
  EXPECT_EQ(take(reader), "");
  for (std::uint64_t rev = 1; rev <= 4; ++rev) EXPECT_TRUE(publish(reader, rev));
  EXPECT_FALSE(publish(reader, 5));
  reader.finish_with("bye");
  EXPECT_TRUE(publish(reader, 6));  // nobody listens any more
  const auto texts = reader.take(10, WallTime{0});
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_EQ(*texts[0], "bye");
  EXPECT_TRUE(reader.over());
}

// §2.7: filters by domain, urgency and session; what they leave out moves the reader's place all the same.
TEST_F(HttpEventFeed, filters_by_domain_urgency_and_session) {
  const std::vector<CommitEvent> events{
      {"worker_gone", "w0", RawJson{"{}"}},
      {"request_accepted", "req_1", RawJson{"{}"}},
      {"session_progress_update", "s1", RawJson{R"({"session_id":"s1"})"}},
      {"inference_progress", "req_2", RawJson{R"({"prompt":"\"session_id\":\"s1\""})"}, "s2"},
      {"device_health_update", "gpu_0",
       RawJson{R"({"event_type":"device_health_update","device_id":"gpu_0","health_metrics":{"temperature":95,)"
               R"("utilization":1,"memory_usage":0.1,"error_count":0},)"
               R"("timestamp":"2025-07-12T10:30:45Z","propagation_urgency":"critical"})"}},
  };
  std::uint64_t rev = 0;
  const auto shown = [&](const std::string& query) {
    EventFeed reader = feed(query);
    take(reader);
    std::string out;
    for (const CommitEvent& event : events) {
      const out::Publish what{Rev{++rev}, WallTime{0}, {event}};
      history.add(std::make_shared<const out::Publish>(what));
      EXPECT_TRUE(reader.publish(what, text_of(what)));
      for (const auto& text : reader.take(4, WallTime{0})) {
        out += cat(out.empty() ? "" : " ", text->substr(text->find("event: ") + 7, 6));
      }
    }
    return out;
  };
  EXPECT_EQ(shown("domain=device"), "worker device");
  EXPECT_EQ(shown("domain=processing"), "reques sessio");
  EXPECT_EQ(shown("urgency=p0"), "device");
  EXPECT_EQ(shown("urgency=p1"), "worker device");
  EXPECT_EQ(shown("session=s2"), "infere");
  EXPECT_EQ(shown("session=s1"), "sessio");
  EXPECT_EQ(shown("session=s"), "");
  EXPECT_EQ(shown("domain=memory"), "");
  EXPECT_EQ(read_event_query("domain=memry", {}, Rev{}).error().pointer, "/domain");
  EXPECT_EQ(read_event_query("urgency=p4", {}, Rev{}).error().pointer, "/urgency");
}

TEST_F(HttpEventFeed, each_event_says_its_urgency_and_domain) {
  const std::string text = events_text(Rev{1}, WallTime{0}, {{"worker_gone", "w0", RawJson{"{}"}}});
  EXPECT_NE(text.find(R"("urgency":"p1_high","domain":"device"})"), std::string::npos) << text;
}

TEST_F(HttpEventFeed, a_place_that_is_none_is_refused_with_its_value) {
  add(7);
  const auto refused = [&](const std::string& query, std::optional<std::string_view> id, const std::string& words) {
    const auto read = read_event_query(query, id, history.newest());
    ASSERT_FALSE(read.has_value()) << query;
    EXPECT_EQ(read.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(read.error().message.find(words), std::string::npos) << read.error().message;
  };
  refused("", "8", "Last-Event-ID is 8; the newest rev is 7");
  refused("since=8", {}, "since is 8; the newest rev is 7");
  refused("since=x", {}, "since is \"x\"");
  refused("since=-1", {}, "since is \"-1\"");
  refused("since=", {}, "since is \"\"");
  refused("since=99999999999999999999", {}, "whole number");
  refused("", "7 ", "Last-Event-ID is \"7 \"");
  refused("since=1&last=1", {}, "use one");
  refused("follow=yes", {}, "follow is \"yes\"; it must be true or false");
  refused("sinse=1", {}, "sinse is unknown");
  EXPECT_TRUE(read_event_query("since=7", {}, history.newest()).has_value());
}

TEST(HttpEventHistory, both_limits_hold_and_the_floor_follows) {
  EventHistory history({.events_max = 100, .bytes_max = 3000});
  const auto large = [](std::uint64_t rev, std::size_t bytes) {
    return std::make_shared<const out::Publish>(
        out::Publish{Rev{rev}, WallTime{0}, {{"t", "s", RawJson{std::string(bytes, 'x')}}}});
  };
  history.add(large(2, 1000));
  history.add(large(4, 1000));
  EXPECT_EQ(history.floor(), Rev{0});
  EXPECT_EQ(history.after(Rev{2})->rev, Rev{4});
  history.add(large(9, 1500));
  EXPECT_EQ(history.floor(), Rev{2});
  EXPECT_LE(history.bytes(), 3000u);
  history.add(large(10, 5000));  // larger than everything: known to be missing, not kept
  EXPECT_EQ(history.floor(), Rev{10});
  EXPECT_EQ(history.newest(), Rev{10});
  EXPECT_EQ(history.after(Rev{0}), nullptr);
  EXPECT_EQ(history.bytes(), 0u);
}

}  // namespace
}  // namespace lockstep::http
