#include "operations/tables.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/text.h"

namespace lockstep {
namespace {

/// The names between backticks, from the beginning of the sentence on to the next one's.
std::vector<std::string> named_in(const std::string& page, const std::string& begin, const std::string& end) {
  std::vector<std::string> out;
  const std::size_t last = page.find(end);
  for (std::size_t at = page.find(begin); at < last && (at = page.find('`', at)) < last;) {
    const std::size_t close = page.find('`', at + 1);
    out.push_back(page.substr(at + 1, close - at - 1));
    at = close + 1;
  }
  return out;
}

TEST(Tables, the_page_of_the_journal_names_each_in_its_order) {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR, "/docs/formats/journal.md"));
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> names;
  Tables().for_each_table([&](const auto& table) { names.emplace_back(table.name()); });
  EXPECT_EQ(named_in(page, "State tables, named by room:", "Their rows are the structs"), names);
}

}  // namespace
}  // namespace lockstep
