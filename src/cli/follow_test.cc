#include "cli/follow.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep::cli {
namespace {

http::ServerSentEvent event(std::uint64_t rev, const std::string& type, bool last) {
  return {last ? cat(rev) : "", type,
          cat(R"({"rev":)", rev, R"(,"time":"","type":")", type, R"(","subject":"s","body":{}})")};
}
http::ServerSentEvent progress() {
  return {"", "progress", R"({"time":"","type":"progress","subject":"s","body":{}})"};
}

std::string types(const std::vector<http::ServerSentEvent>& events) {
  std::string out;
  for (const auto& each : events) out += each.type;
  return out;
}

TEST(CliCommitGatherer, a_commit_is_shown_when_it_is_whole_and_progress_at_once) {
  CommitGatherer gatherer;
  EXPECT_EQ(types(gatherer.add(event(5, "a", false))), "");
  EXPECT_EQ(types(gatherer.add(event(5, "b", true))), "ab");
  EXPECT_EQ(types(gatherer.add(progress())), "progress");
}

TEST(CliCommitGatherer, a_commit_that_was_cut_is_shown_once) {
  CommitGatherer gatherer;
  EXPECT_EQ(types(gatherer.add(event(5, "a", false))), "");
  gatherer.cut();
  EXPECT_EQ(types(gatherer.add(event(5, "a", false))), "");
  EXPECT_EQ(types(gatherer.add(event(5, "b", true))), "ab");
  EXPECT_EQ(types(gatherer.add(event(5, "a", false))), "");  // told again by whoever: told already
  EXPECT_EQ(types(gatherer.add(event(5, "b", true))), "");
  EXPECT_EQ(types(gatherer.add(event(6, "c", true))), "c");
}

}  // namespace
}  // namespace lockstep::cli
