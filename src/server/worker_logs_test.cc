#include "server/worker_logs.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/text.h"

namespace lockstep::server {
namespace {

namespace fs = std::filesystem;
const WorkerId w("w0");

class WorkerLogsTest : public testing::Test {
 protected:
  WorkerLogsTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_logs_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder = name;
  }
  ~WorkerLogsTest() override { fs::remove_all(folder); }
  void SetUp() override { ASSERT_FALSE(folder.empty()); }

  void append(const std::string& text) const { std::ofstream(folder / "w0.log", std::ios::app) << text; }
  std::string content(const std::string& name) const {
    std::ifstream in(folder / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  WorkerLogs logs(Bytes limit = 10_KiB) const { return {folder.string(), limit, 7}; }
  static std::string read(const WorkerLogs& from, std::size_t lines) {
    return from.read(w, {.lines = lines, .after = ""})->text;
  }

  fs::path folder;
};

TEST_F(WorkerLogsTest, the_last_lines_are_told) {
  const WorkerLogs all = logs();
  EXPECT_EQ(read(all, 5), "");  // it never wrote
  append("a\nb\nc\n");
  EXPECT_EQ(read(all, 2), "b\nc\n");
  EXPECT_EQ(read(all, 9), "a\nb\nc\n");
  EXPECT_EQ(read(all, 0), "");
  append("half");
  EXPECT_EQ(read(all, 2), "c\nhalf");
  EXPECT_EQ(all.last_words(w, 2), "c\nhalf");
  append("\n");
  EXPECT_EQ(all.last_words(w, 2), "c\nhalf");
  append(std::string(10'000, 'x'));
  EXPECT_LE(all.last_words(w, 2).size(), 4096u);
}

TEST_F(WorkerLogsTest, a_long_log_is_moved_and_emptied) {
  WorkerLogs all = logs(Bytes{100});
  append(std::string(100, 'x'));
  EXPECT_FALSE(all.too_long(w));
  EXPECT_EQ(all.bound(w), "");
  append("\nthe end\n");
  EXPECT_TRUE(all.too_long(w));
  EXPECT_NE(all.bound(w).find("w0.log.1"), std::string::npos);
  EXPECT_EQ(content("w0.log"), "");
  EXPECT_EQ(content("w0.log.1"), std::string(91, 'x') + "\nthe end\n");
  append("next\n");
  EXPECT_EQ(read(all, 2), "the end\nnext\n");  // over the cut
  append(std::string(200, 'y'));
  all.bound(w);
  EXPECT_EQ(content("w0.log.1"), std::string(100, 'y'));  // one predecessor
}

// What a worker holds is a descriptor in append mode: after the cut it writes at the new beginning, not behind a hole.
TEST_F(WorkerLogsTest, a_writer_that_holds_the_file_goes_on_at_the_beginning) {
  WorkerLogs all = logs(Bytes{100});
  std::ofstream writer(folder / "w0.log", std::ios::app);
  writer << std::string(500, 'x') << std::flush;
  all.bound(w);
  writer << "after\n" << std::flush;
  EXPECT_EQ(content("w0.log"), "after\n");
}

TEST_F(WorkerLogsTest, a_follower_gets_what_came_since_and_is_told_of_a_cut) {
  WorkerLogs all = logs(Bytes{100});
  append("a\n");
  const auto first = all.read(w, {.lines = 10, .after = ""});
  append("b\nc\n");
  const auto second = all.read(w, {.lines = 10, .after = first->end});
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->text, "b\nc\n");
  EXPECT_EQ(all.read(w, {.lines = 10, .after = second->end})->text, "");
  append(std::string(100, 'x'));
  all.bound(w);
  append("long enough to be behind the old place\n");
  const auto third = all.read(w, {.lines = 10, .after = second->end});
  EXPECT_EQ(third->text,
            "[the log was cut here; what was before is in w0.log.1]\nlong enough to be behind the old place\n");
  EXPECT_EQ(all.read(w, {.lines = 10, .after = third->end})->text, "");
  for (const std::string place : {"x", "1", "1-", "-1", "1-2-3", "1-99999999999999999999"}) {
    EXPECT_EQ(all.read(w, {.lines = 10, .after = place}).error().code, ErrorCode::invalid_argument) << place;
  }
}

TEST_F(WorkerLogsTest, one_answer_is_bounded) {
  const WorkerLogs all = logs(10_MiB);
  append(std::string(3u << 20, 'x'));
  const auto first = all.read(w, {.lines = 10, .after = "7-0"});
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->text.size(), 1u << 20);
  EXPECT_EQ(first->end, cat("7-", 1u << 20));
  EXPECT_LE(read(all, 10).size(), 1u << 20);
}

TEST_F(WorkerLogsTest, where_there_is_no_room_for_a_copy_the_log_is_emptied_all_the_same) {
  WorkerLogs all = logs(Bytes{100});
  fs::create_directory(folder / "w0.log.1");  // cannot be written
  append(std::string(500, 'x'));
  EXPECT_NE(all.bound(w).find("could not be kept"), std::string::npos);
  EXPECT_EQ(content("w0.log"), "");
}

}  // namespace
}  // namespace lockstep::server
