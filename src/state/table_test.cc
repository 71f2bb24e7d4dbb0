#include "state/table.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

struct Row {
  std::string name;
  std::uint64_t count = 0;
};
BOOST_DESCRIBE_STRUCT(Row, (), (name, count))

/// `count` came after the first rows were written.
struct Grown {
  std::string name;
  std::uint64_t count = 0;
  static constexpr std::string_view row_defaults = R"("count":7)";
};
BOOST_DESCRIBE_STRUCT(Grown, (), (name, count))

struct TwoTables {
  Table<Row> first{"test.first"};
  Table<Row> second{"test.second"};
  template <class F>
  void for_each_table(F&& f) {
    f(first);
    f(second);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(first);
    f(second);
  }
};

Commit commit_of(Rev rev, const auto& fill) {
  Change change;
  fill(change);
  Commit commit = change.take(WallTime{1});
  commit.rev = rev;
  return commit;
}

TEST(Tables, a_commit_puts_and_deletes_under_its_rev) {
  TwoTables tables;
  ASSERT_TRUE(apply_changes(tables, commit_of(Rev{1}, [&](Change& change) {
                              change.put(tables.first, "a", Row{"one", 1});
                              change.put(tables.second, "a", Row{"two", 2});
                            })));
  EXPECT_EQ(tables.first.at("a").name, "one");
  EXPECT_EQ(tables.second.entries().at("a").mod_rev, Rev{1});
  ASSERT_TRUE(apply_changes(tables, commit_of(Rev{2}, [&](Change& change) { change.erase(tables.first, "a"); })));
  EXPECT_FALSE(tables.first.contains("a"));
  EXPECT_TRUE(tables.second.contains("a"));
}

TEST(Tables, a_change_that_cannot_be_read_is_data_loss_and_names_its_place) {
  TwoTables tables;
  Commit commit;
  commit.changes = {{"test.third", "a", RawJson{"{}"}}};
  EXPECT_EQ(apply_changes(tables, commit).error().code, ErrorCode::data_loss);
  commit.changes = {{"test.first", "a", RawJson{R"({"name":"x","count":-1})"}}};
  const Status status = apply_changes(tables, commit);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::data_loss);
  EXPECT_EQ(status.error().pointer, "/count");
  EXPECT_NE(status.error().message.find("test.first"), std::string::npos);
}

TEST(Tables, a_row_that_an_older_program_wrote_gets_its_defaults_and_no_other_does) {
  Table<Grown> table("test.grown");
  ASSERT_TRUE(table.apply({"test.grown", "old", RawJson{R"({"name":"a"})"}}, Rev{1}).has_value());
  ASSERT_TRUE(table.apply({"test.grown", "new", RawJson{R"({"name":"b","count":1})"}}, Rev{2}).has_value());
  EXPECT_EQ(table.at("old").count, 7u);
  EXPECT_EQ(table.at("new").count, 1u);
  for (const std::string broken : {R"({"name":1})", R"({})", R"({"count":1})", "[]", ""}) {
    EXPECT_FALSE(table.apply({"test.grown", "x", RawJson{broken}}, Rev{3}).has_value()) << broken;
  }
  EXPECT_EQ(with_defaults("{}", R"("a":1)"), R"({"a":1})");
}

// Equal digests at equal revs mean equal state: table, key, value and the rev of every row count, and the rev itself.
TEST(Tables, every_part_of_the_state_is_in_its_digest) {
  const std::vector<RowText> rows{{"t", "k", "v", Rev{3}}};
  const std::string digest = digest_of(Rev{5}, rows);
  EXPECT_EQ(digest, digest_of(Rev{5}, rows));
  EXPECT_NE(digest, digest_of(Rev{6}, rows));
  for (const RowText& other : {RowText{"u", "k", "v", Rev{3}}, RowText{"t", "l", "v", Rev{3}},
                               RowText{"t", "k", "w", Rev{3}}, RowText{"t", "k", "v", Rev{4}}}) {
    EXPECT_NE(digest, digest_of(Rev{5}, {other}));
  }
  // Lengths are written, so a part cannot flow into its neighbour.
  EXPECT_NE(digest_of(Rev{5}, {{"tk", "", "v", Rev{3}}}), digest_of(Rev{5}, {{"t", "k", "v", Rev{3}}}));
}

}  // namespace
}  // namespace lockstep
