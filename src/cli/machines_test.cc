#include "cli/machines.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

namespace lockstep::cli {
namespace {

TEST(Machines, the_page_is_what_the_tables_say) {
  std::ifstream file(LOCKSTEP_SOURCE_DIR "/docs/state_machines.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(page, machines_document()) << "print it with `lockstep message machines`";
}

TEST(Machines, an_end_is_shown_as_one) {
  const std::string page = machines_document();
  EXPECT_NE(page.find("  preparing --> committing: vote_commit\n"), std::string::npos);
  EXPECT_NE(page.find("  aborted --> [*]\n"), std::string::npos);
  EXPECT_EQ(page.find("  queued --> [*]\n"), std::string::npos);
  EXPECT_NE(page.find("  aborted --> aborted: vote_commit\n"), std::string::npos) << "what comes late is no way out";
}

}  // namespace
}  // namespace lockstep::cli
