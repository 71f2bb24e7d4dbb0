#include "journal/sqlite_store.h"

#include <sqlite3.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"
#include "journal/sqlite_rows.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

class SqliteStoreTest : public testing::Test {
 protected:
  SqliteStoreTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_journal_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~SqliteStoreTest() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  std::string path() const { return (folder_ / "journal.db").string(); }

  static std::unique_ptr<SqliteStore> open(const std::string& path) {
    auto store = SqliteStore::open(path);
    EXPECT_TRUE(store.has_value()) << (store ? "" : store.error().message);
    return store ? *std::move(store) : nullptr;
  }
  static Error open_error(const std::string& path) {
    const auto store = SqliteStore::open(path);
    EXPECT_FALSE(store.has_value());
    return store ? Error{} : store.error();
  }
  static Error recover_error(const std::string& path) {
    const auto store = open(path);
    if (!store) return {};
    const auto recovered = store->recover();
    EXPECT_FALSE(recovered.has_value());
    return recovered ? Error{} : recovered.error();
  }

  /// Records first..last with the body "body <lsn>".
  static std::vector<Record> records(std::uint64_t first, std::uint64_t last) {
    std::vector<Record> out;
    for (std::uint64_t lsn = first; lsn <= last; ++lsn) out.push_back({Lsn{lsn}, cat("body ", lsn)});
    return out;
  }
  void write_three() const {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 3);
  }

  /// As so many syncs, with a row of each.
  static void append_singly(SqliteStore& store, std::uint64_t first, std::uint64_t last) {
    for (; first <= last; ++first) ASSERT_TRUE(store.append(records(first, first)).has_value());
  }

  static void tidy_all(SqliteStore& store) {
    while (store.untidy()) ASSERT_TRUE(store.tidy().has_value());
  }

  /// Runs SQL on the closed journal, as damage or an older program would.
  static void edit(const std::string& path, const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
    const int changed = sqlite3_changes(db);
    EXPECT_TRUE(changed == 1 || sql.starts_with("PRAGMA") || sql.starts_with("CREATE")) << sql;
    sqlite3_free(message);
    sqlite3_close(db);
  }

  fs::path folder_;
};

void expect_records(const std::vector<Record>& records, std::uint64_t first, std::uint64_t last) {
  ASSERT_EQ(records.size(), last - first + 1);
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].lsn, Lsn{first + i});
    EXPECT_EQ(records[i].body, cat("body ", first + i));
  }
}

TEST_F(SqliteStoreTest, a_new_journal_is_empty) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value());
  EXPECT_EQ(recovered->snapshot_at, Lsn{});
  EXPECT_TRUE(recovered->rows.empty());
  EXPECT_TRUE(recovered->records.empty());
}

TEST_F(SqliteStoreTest, what_was_appended_is_recovered_in_order) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    ASSERT_TRUE(store->append(records(1, 2)).has_value());
    ASSERT_TRUE(store->append(records(3, 3)).has_value());
  }
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  expect_records(recovered->records, 1, 3);
  // The chain goes on from what was recovered.
  ASSERT_TRUE(store->append(records(4, 4)).has_value());
  const auto again = store->recover();
  ASSERT_TRUE(again.has_value()) << again.error().message;
  expect_records(again->records, 1, 4);
}

TEST_F(SqliteStoreTest, bodies_keep_every_byte) {
  const std::string body = std::string("a\0b", 3) + std::string(100'000, 'x') + "\xC3\xBC";
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  const std::vector<Record> one{{Lsn{1}, body}};
  ASSERT_TRUE(store->append(one).has_value());
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  ASSERT_EQ(recovered->records.size(), 1u);
  EXPECT_EQ(recovered->records[0].body, body);
}

TEST_F(SqliteStoreTest, a_second_open_is_refused_while_the_first_lives) {
  auto first = open(path());
  ASSERT_NE(first, nullptr);
  const Error error = open_error(path());
  EXPECT_EQ(error.code, ErrorCode::unavailable);
  EXPECT_NE(error.message.find("another lockstep"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(path()), std::string::npos) << error.message;
  first.reset();
  EXPECT_NE(open(path()), nullptr);
}

TEST_F(SqliteStoreTest, damage_in_a_body_names_the_record) {
  write_three();
  edit(path(), "UPDATE record SET body='body X' WHERE lsn=2");
  const Error error = recover_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("record 2 failed its checksum"), std::string::npos) << error.message;
}

TEST_F(SqliteStoreTest, a_missing_record_is_named) {
  write_three();
  edit(path(), "DELETE FROM record WHERE lsn=2");
  const Error error = recover_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("record 2 is missing; the next is 3"), std::string::npos) << error.message;
}

TEST_F(SqliteStoreTest, a_record_from_elsewhere_breaks_the_chain) {
  write_three();
  // The same body under the checksum that it has as a first record: right by itself, wrong in this chain.
  const std::string other = (folder_ / "other.db").string();
  {
    const auto store = open(other);
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    const std::vector<Record> foreign{{Lsn{1}, "foreign"}};
    ASSERT_TRUE(store->append(foreign).has_value());
    append_singly(*store, 2, 2);
  }
  edit(path(), cat("PRAGMA journal_mode=DELETE; ATTACH '", other,
                   "' AS other; UPDATE record SET crc=(SELECT crc FROM other.record WHERE lsn=2) WHERE lsn=2"));
  EXPECT_NE(recover_error(path()).message.find("record 2 failed its checksum"), std::string::npos);
}

TEST_F(SqliteStoreTest, a_foreign_database_is_refused_and_left_alone) {
  edit(path(), "CREATE TABLE notes(text TEXT)");
  const Error error = open_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("not a lockstep journal"), std::string::npos) << error.message;
  edit(path(), "INSERT INTO notes VALUES('still mine')");
}

TEST_F(SqliteStoreTest, a_file_that_is_no_database_is_refused) {
  std::ofstream(path()) << std::string(4096, 'x');
  EXPECT_FALSE(SqliteStore::open(path()).has_value());
}

// Nobody looks for another lockstep when it is the disk that has gone bad.
TEST_F(SqliteStoreTest, a_damaged_first_page_is_damage_and_not_a_lock) {
  write_three();
  std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
  file.write("Damaged", 7);
  file.close();
  const Error error = open_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("cannot be read: file is not a database"), std::string::npos) << error.message;
}

TEST_F(SqliteStoreTest, a_newer_format_is_refused_with_both_versions) {
  write_three();
  edit(path(), cat("PRAGMA user_version=", SqliteStore::format_version + 1));
  const Error error = open_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("format version 4; this lockstep reads versions 1 to 3"), std::string::npos)
      << error.message;
}

TEST_F(SqliteStoreTest, a_snapshot_replaces_the_records_up_to_it) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    ASSERT_TRUE(store->append(records(1, 3)).has_value());
    const std::vector<SnapshotRow> rows{{"t", "a", "1", Rev{2}}, {"t", "b", "2", Rev{3}}, {"t", "c", "3", Rev{3}}};
    ASSERT_TRUE(store->snapshot({rows, Lsn{3}}).has_value());
    ASSERT_TRUE(store->append(records(4, 5)).has_value());
    const std::vector<SnapshotRow> changed{{"t", "a", "9", Rev{4}}, {"t", "b", std::nullopt, Rev{}}};
    ASSERT_TRUE(store->snapshot({changed, Lsn{5}}).has_value());
    ASSERT_TRUE(store->append(records(6, 7)).has_value());
  }
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  EXPECT_EQ(recovered->snapshot_at, Lsn{5});
  ASSERT_EQ(recovered->rows.size(), 2u);
  EXPECT_EQ(recovered->rows[0].key, "a");
  EXPECT_EQ(recovered->rows[0].value, "9");
  EXPECT_EQ(recovered->rows[0].mod_rev, Rev{4});
  EXPECT_EQ(recovered->rows[1].key, "c");
  expect_records(recovered->records, 6, 7);
  expect_records(recovered->past, 1, 5);  // for readers of the event stream; the state does not need them
}

TEST_F(SqliteStoreTest, the_past_is_bounded_and_its_damage_is_named) {
  constexpr std::uint64_t kept = SqliteStore::past_records_max;
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 12);
    ASSERT_TRUE(store->append(records(13, kept + 3)).has_value());
    ASSERT_TRUE(store->snapshot({{}, Lsn{kept + 3}}).has_value());
    tidy_all(*store);
    const auto recovered = store->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    EXPECT_TRUE(recovered->records.empty());
    expect_records(recovered->past, 4, kept + 3);
  }
  edit(path(), "UPDATE record SET body='x' WHERE lsn=9");
  EXPECT_NE(recover_error(path()).message.find("record 9 failed its checksum"), std::string::npos);
  edit(path(), "UPDATE record SET body='body 9' WHERE lsn=9");
  EXPECT_NE(open(path())->recover()->past.size(), 0u);
  edit(path(), "DELETE FROM record WHERE lsn=9");
  EXPECT_NE(recover_error(path()).message.find("record 9 is missing; the next is 10"), std::string::npos);
}

// Half of a row cannot be forgotten: what is kept begins with a row.
// With the record before it its checksum is forgotten: what cannot be checked is not handed out.
TEST_F(SqliteStoreTest, the_oldest_record_is_checked_or_is_not_handed_out) {
  constexpr std::uint64_t kept = SqliteStore::past_records_max;
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 3);
    ASSERT_TRUE(store->snapshot({{}, Lsn{3}}).has_value());
    tidy_all(*store);
  }
  const std::string young = (folder_ / "young.db").string();
  fs::copy_file(path(), young);
  edit(young, "UPDATE record SET body='x' WHERE lsn=1");
  EXPECT_NE(recover_error(young).message.find("record 1 failed its checksum"), std::string::npos);
  {
    const auto store = open(path());
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 4, 6);
    ASSERT_TRUE(store->append(records(7, kept + 3)).has_value());
    ASSERT_TRUE(store->snapshot({{}, Lsn{kept + 3}}).has_value());
    tidy_all(*store);
  }
  edit(path(), "UPDATE record SET body='x' WHERE lsn=3");
  const auto recovered = open(path())->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  expect_records(recovered->past, 4, kept + 3);
}

TEST_F(SqliteStoreTest, of_records_that_share_a_row_all_are_kept_or_none) {
  constexpr std::uint64_t kept = SqliteStore::past_records_max;
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  ASSERT_TRUE(store->append(records(1, 5)).has_value());
  ASSERT_TRUE(store->append(records(6, 10)).has_value());
  ASSERT_TRUE(store->append(records(11, kept + 7)).has_value());
  ASSERT_TRUE(store->snapshot({{}, Lsn{kept + 7}}).has_value());
  tidy_all(*store);
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  expect_records(recovered->past, 11, kept + 7);  // those from 6 to 10 are there to check the next row with
  tidy_all(*store);  // comes to an end also where nothing can be forgotten
}

TEST_F(SqliteStoreTest, records_of_one_sync_are_one_row_and_its_damage_is_named) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 1);
    ASSERT_TRUE(store->append(records(2, 65)).has_value());
    append_singly(*store, 66, 66);
    const auto recovered = store->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    expect_records(recovered->records, 1, 66);
  }
  const std::string whole = (folder_ / "whole.db").string();
  fs::copy_file(path(), whole);
  for (const auto& [damage, said] : {
           // The last byte of what was packed, its size, and the row under another name.
           std::pair("UPDATE record SET body=CAST(substr(body, 1, length(body) - 1) || X'00' AS BLOB) WHERE lsn=65",
                     "the records up to 65 failed their checksum"),
           std::pair("UPDATE record SET body=CAST(X'FFFFFFFF' || substr(body, 5) AS BLOB) WHERE lsn=65",
                     "the records up to 65 failed their checksum"),
           std::pair("UPDATE record SET body=X'00' WHERE lsn=65", "the records up to 65 failed their checksum"),
           std::pair("UPDATE record SET lsn=64 WHERE lsn=65", "the records up to 64 failed their checksum"),
           std::pair("DELETE FROM record WHERE lsn=65", "record 2 is missing; the next is 66"),
           std::pair("DELETE FROM record WHERE lsn=1", "record 1 is missing; the next is 2"),
       }) {
    fs::copy_file(whole, path(), fs::copy_options::overwrite_existing);
    edit(path(), damage);
    const Error error = recover_error(path());
    EXPECT_EQ(error.code, ErrorCode::data_loss);
    EXPECT_NE(error.message.find(said), std::string::npos) << damage << ": " << error.message;
  }
}

TEST_F(SqliteStoreTest, many_records_of_one_sync_are_several_rows_and_one_unit) {
  std::vector<Record> many;
  for (std::uint64_t lsn = 1; lsn <= 40; ++lsn) many.push_back({Lsn{lsn}, std::string(20'000 + lsn, 'a')});
  many[7].body = std::string(1 << 20, 'b');  // more than a row of several may hold
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  ASSERT_TRUE(store->append(many).has_value());
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  ASSERT_EQ(recovered->records.size(), many.size());
  for (std::size_t i = 0; i < many.size(); ++i) {
    EXPECT_EQ(recovered->records[i].lsn, many[i].lsn);
    EXPECT_TRUE(recovered->records[i].body == many[i].body) << i;
  }
}

TEST_F(SqliteStoreTest, damage_in_a_snapshot_row_names_the_row) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    ASSERT_TRUE(store->append(records(1, 1)).has_value());
    const std::vector<SnapshotRow> rows{{"jobs", "j1", "{}", Rev{1}}};
    ASSERT_TRUE(store->snapshot({rows, Lsn{1}}).has_value());
  }
  edit(path(), "UPDATE snapshot_row SET value='[]'");
  const Error error = recover_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("snapshot row jobs/j1 failed its checksum"), std::string::npos) << error.message;
}

TEST_F(SqliteStoreTest, the_mark_may_stand_behind_the_newest_record) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  append_singly(*store, 1, 5);
  const std::vector<SnapshotRow> first{{"t", "a", "1", Rev{2}}};
  const std::vector<SnapshotRow> last{{"t", "b", "2", Rev{5}}};
  ASSERT_TRUE(store->snapshot({first, std::nullopt}).has_value());
  EXPECT_EQ(store->recover()->snapshot_at, Lsn{});
  EXPECT_EQ(store->recover()->rows.size(), 1u);
  ASSERT_TRUE(store->snapshot({last, Lsn{3}}).has_value());
  const auto recovered = store->recover();
  ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
  EXPECT_EQ(recovered->snapshot_at, Lsn{3});
  EXPECT_EQ(recovered->rows.size(), 2u);
  expect_records(recovered->records, 4, 5);
  expect_records(recovered->past, 1, 3);
}

TEST_F(SqliteStoreTest, a_row_that_is_newer_than_every_record_is_named) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 3);
    const std::vector<SnapshotRow> rows{{"jobs", "j1", "{}", Rev{3}}};
    ASSERT_TRUE(store->snapshot({rows, std::nullopt}).has_value());
  }
  edit(path(), "DELETE FROM record WHERE lsn=3");
  const Error error = recover_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("snapshot row jobs/j1 is of rev 3; the last record is 2"), std::string::npos)
      << error.message;
}

/// A journal whose snapshot changed twice, and itself as it was in between: what a disk may mix.
class SqliteStoreSetTest : public SqliteStoreTest {
 protected:
  void SetUp() override {
    SqliteStoreTest::SetUp();
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    append_singly(*store, 1, 3);
    const std::vector<SnapshotRow> rows{{"t", "a", "1", Rev{2}}, {"t", "b", "2", Rev{3}}, {"t", "c", "3", Rev{3}}};
    ASSERT_TRUE(store->snapshot({rows, Lsn{3}}).has_value());
    ASSERT_TRUE(store->backup(older()).has_value());
    append_singly(*store, 4, 6);
    const std::vector<SnapshotRow> changed{{"t", "a", "9", Rev{4}}, {"t", "b", std::nullopt, Rev{}}};
    ASSERT_TRUE(store->snapshot({changed, Lsn{4}}).has_value());
  }
  std::string older() const { return (folder_ / "older.db").string(); }
  /// Runs SQL that may read from `older`.
  void mix(const std::string& sql) const {
    edit(path(), cat("PRAGMA journal_mode=DELETE; ATTACH '", older(), "' AS older; ", sql));
  }
  void expect_refused(const std::string& said) const {
    const Error error = recover_error(path());
    EXPECT_EQ(error.code, ErrorCode::data_loss);
    EXPECT_NE(error.message.find(said), std::string::npos) << error.message;
    EXPECT_NE(error.message.find(cat("journal ", path())), std::string::npos) << error.message;
  }
};

TEST_F(SqliteStoreSetTest, rows_that_come_change_and_go_stay_one_set) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  const auto before = store->recover();
  ASSERT_TRUE(before.has_value()) << before.error().message;
  EXPECT_EQ(before->rows.size(), 2u);
  // Again what is there, away what is not there, and one key twice in a piece.
  const std::vector<SnapshotRow> rows{{"t", "a", "9", Rev{4}},         {"t", "none", std::nullopt, Rev{}},
                                      {"t", "c", std::nullopt, Rev{}}, {"t", "c", "4", Rev{5}},
                                      {"t", "c", "5", Rev{6}},         {"u", "a", "6", Rev{6}}};
  ASSERT_TRUE(store->snapshot({rows, std::nullopt}).has_value());
  const auto after = store->recover();
  ASSERT_TRUE(after.has_value()) << after.error().message;
  ASSERT_EQ(after->rows.size(), 3u);
  EXPECT_EQ(after->rows[1].value, "5");
  EXPECT_EQ(after->snapshot_at, Lsn{4});
}

TEST_F(SqliteStoreSetTest, a_row_as_it_was_earlier_is_refused) {
  mix("UPDATE snapshot_row SET (value, mod_rev, crc) = (SELECT value, mod_rev, crc FROM older.snapshot_row o "
      "WHERE o.key='a') WHERE key='a'");
  expect_refused("the rows of the snapshot are not those that were written: expected 2 rows with the sum ");
  expect_refused("; it is a mix of older and newer pages");
}

TEST_F(SqliteStoreSetTest, a_row_that_is_missing_is_refused) {
  edit(path(), "DELETE FROM snapshot_row WHERE key='c'");
  expect_refused("found 1 with the sum ");
}

TEST_F(SqliteStoreSetTest, a_row_that_was_gone_is_refused) {
  mix("INSERT INTO snapshot_row SELECT * FROM older.snapshot_row WHERE key='b'");
  expect_refused("found 3 with the sum ");
}

TEST_F(SqliteStoreSetTest, marks_of_an_earlier_piece_are_refused) {
  mix("CREATE TABLE old AS SELECT * FROM older.mark; DELETE FROM mark; INSERT INTO mark SELECT * FROM old; "
      "DROP TABLE old; UPDATE record SET body=body WHERE lsn=1");
  expect_refused("expected 3 rows with the sum ");
}

// A page of 4096 bytes is eight sectors of a disk: the marks themselves may be of two moments.
TEST_F(SqliteStoreSetTest, one_mark_of_an_earlier_piece_is_refused) {
  for (const char* name : {"snapshot_at", "snapshot_crc", "rows_at", "rows_crc", "rows_count", "rows_sum"}) {
    const std::string copy = (folder_ / cat(name, ".db")).string();
    fs::copy_file(path(), copy);
    edit(copy, cat("PRAGMA journal_mode=DELETE; ATTACH '", older(),
                   "' AS older; UPDATE mark SET value=(SELECT value FROM older.mark o WHERE o.name='", name,
                   "') WHERE name='", name, "'"));
    EXPECT_NE(recover_error(copy).message.find("the marks of the snapshot failed their checksum"), std::string::npos)
        << name;
    edit(copy, cat("DELETE FROM mark WHERE name='", name, "'"));
    EXPECT_NE(recover_error(copy).message.find(cat("the mark ", name, " is missing")), std::string::npos) << name;
  }
}

// A row that is gone has no rev: only the mark knows that its deletion is newer than every record.
TEST_F(SqliteStoreSetTest, records_that_rows_were_written_after_are_missed) {
  edit(path(), "PRAGMA journal_mode=DELETE; DELETE FROM record WHERE lsn=6; DELETE FROM record WHERE lsn=5");
  expect_refused("the rows of the snapshot were written after record 6; the last record is 4");
}

// Another record 5 and 6 that hang on record 4 as well: what came after a crash that lost the first ones.
TEST_F(SqliteStoreSetTest, rows_of_another_course_of_things_are_refused) {
  const std::string body = "another 5";
  const std::string last = "another 6";
  std::uint32_t crc = 0;
  for (std::uint64_t lsn = 1; lsn <= 4; ++lsn) crc = checksum_of(Lsn{lsn}, false, cat("body ", lsn), crc);
  for (const auto& [lsn, text] : {std::pair(5, body), std::pair(6, last)}) {
    crc = checksum_of(Lsn{static_cast<std::uint64_t>(lsn)}, false, text, crc);
    edit(path(), cat("UPDATE record SET body='", text, "', crc=", crc, " WHERE lsn=", lsn));
  }
  expect_refused("record 6 is not the one that the snapshot's rows were written after");
}

TEST_F(SqliteStoreSetTest, a_past_that_ends_before_the_snapshot_is_refused) {
  edit(path(), "DELETE FROM record WHERE lsn=4");
  expect_refused("record 4 is missing; the snapshot was made at 4");
}

TEST_F(SqliteStoreTest, a_batch_whose_end_is_missing_is_refused) {
  {
    const auto store = open(path());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->recover().has_value());
    const std::string big(200'000, 'x');  // two of them are two rows
    const std::vector<Record> batch{{Lsn{1}, big}, {Lsn{2}, big}, {Lsn{3}, big}};
    ASSERT_TRUE(store->append(batch).has_value());
    ASSERT_TRUE(store->recover().has_value());
  }
  edit(path(), "DELETE FROM record WHERE lsn=3");
  const Error error = recover_error(path());
  EXPECT_EQ(error.code, ErrorCode::data_loss);
  EXPECT_NE(error.message.find("record 2 is not the last of its batch; the next is missing"), std::string::npos)
      << error.message;
  edit(path(), "UPDATE record SET crc=crc & 4294967295 WHERE lsn=2");
  EXPECT_NE(recover_error(path()).message.find("record 2 failed its checksum"), std::string::npos);
}

// Its first page is of before the upgrade, its marks are of after.
TEST_F(SqliteStoreSetTest, an_older_version_with_marks_of_version_3_is_refused) {
  for (const int version : {1, 2}) {
    edit(path(), cat("PRAGMA user_version=", version));
    expect_refused(cat("it says format version ", version,
                       " and has marks of a later one; it is a mix of older and newer "
                       "pages"));
  }
}

// WAL, exclusive, without a shared-memory file: nobody else can read what we have not made durable.
TEST_F(SqliteStoreTest, the_journal_is_a_wal_that_nobody_else_can_read) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  ASSERT_TRUE(store->append(records(1, 1)).has_value());
  EXPECT_TRUE(fs::exists(path() + "-wal"));
  EXPECT_FALSE(fs::exists(path() + "-shm"));
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open_v2(path().c_str(), &other, SQLITE_OPEN_READWRITE, nullptr), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(other, "SELECT count(*) FROM record", nullptr, nullptr, nullptr), SQLITE_BUSY);
  sqlite3_close(other);
}

/// db and wal as they lie on the disk at this instant, under another name.
void copy_as_crashed(const std::string& from, const std::string& to) {
  fs::copy_file(from, to);
  if (fs::exists(from + "-wal")) fs::copy_file(from + "-wal", to + "-wal");
}

TEST_F(SqliteStoreTest, after_a_crash_everything_appended_is_there) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  for (std::uint64_t lsn = 1; lsn <= 6; ++lsn) {
    ASSERT_TRUE(store->append(records(lsn, lsn)).has_value());
    const std::string copy = (folder_ / cat("crashed_", lsn, ".db")).string();
    copy_as_crashed(path(), copy);  // the first is still open: nothing was checkpointed or closed
    const auto crashed = open(copy);
    ASSERT_NE(crashed, nullptr);
    const auto recovered = crashed->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    expect_records(recovered->records, 1, lsn);
  }
}

/// How much of a file stands before the zeros at its end.
std::uintmax_t written(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return bytes.find_last_not_of('\0') + 1;
}

// A commit that lengthens the log costs a sync of the file system's own records beside its own.
TEST_F(SqliteStoreTest, a_commit_does_not_lengthen_the_log) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  const Status first = store->append(records(1, 1));
  ASSERT_TRUE(first.has_value()) << first.error().message;
  const std::string log = path() + "-wal";
  const auto size = fs::file_size(log);
  for (std::uint64_t lsn = 2; lsn <= 100; ++lsn) ASSERT_TRUE(store->append(records(lsn, lsn)).has_value());
  EXPECT_GT(written(log), 400'000u);
  EXPECT_EQ(fs::file_size(log), size);
  const auto before = written(log);
  ASSERT_FALSE(store->untidy());
  ASSERT_TRUE(store->append(records(101, 600)).has_value());
  for (std::uint64_t lsn = 601; !store->untidy(); ++lsn) ASSERT_TRUE(store->append(records(lsn, lsn)).has_value());
  EXPECT_LT(written(log), 1'100'000u);
  EXPECT_EQ(fs::file_size(log), size);
  const auto longest = written(log);
  const std::uint64_t next = store->recover()->records.size() + 1;
  tidy_all(*store);
  for (std::uint64_t lsn = next; lsn < next + 50; ++lsn) ASSERT_TRUE(store->append(records(lsn, lsn)).has_value());
  EXPECT_GT(longest, before);
  EXPECT_EQ(written(log), longest);  // from its begin again
  EXPECT_EQ(fs::file_size(log), size);
}

TEST_F(SqliteStoreTest, a_log_that_is_nearly_full_grows_and_starts_do_not_lengthen_it) {
  const std::string big(1u << 20, 'x');
  std::string from = path();
  std::unique_ptr<SqliteStore> store = open(from);
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  for (std::uint64_t lsn = 1; lsn <= 9; ++lsn) {
    const std::vector<Record> one{{Lsn{lsn}, big}};
    ASSERT_TRUE(store->append(one).has_value());
    EXPECT_GE(fs::file_size(from + "-wal"), written(from + "-wal"));
  }
  const auto size = fs::file_size(from + "-wal");
  EXPECT_GT(size, 9u << 20);
  for (std::uint64_t start = 0; start < 3; ++start) {  // each leaves its log behind
    const std::string copy = (folder_ / cat("start_", start, ".db")).string();
    copy_as_crashed(from, copy);
    from = copy;
    store = open(from);
    ASSERT_NE(store, nullptr);
    const auto recovered = store->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    ASSERT_EQ(recovered->records.size(), 9 + start);
    ASSERT_TRUE(store->append(records(10 + start, 10 + start)).has_value());
    EXPECT_EQ(fs::file_size(from + "-wal"), size);
  }
}

// Room that is only nice to have is not taken from a disk that has none: commits and images need it.
TEST_F(SqliteStoreTest, without_room_to_spare_commits_go_on) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 20, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::vector<Status> done;
  for (std::uint64_t lsn = 1; lsn <= 20; ++lsn) done.push_back(store->append(records(lsn, lsn)));
  const auto size = fs::file_size(path() + "-wal");
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);
  for (const Status& each : done) EXPECT_TRUE(each.has_value()) << each.error().message;
  EXPECT_LT(size, 200'000u) << "what was written of the reserve is given back";
  ASSERT_TRUE(store->snapshot({{}, Lsn{20}}).has_value());
  const std::vector<Record> big{{Lsn{21}, std::string(2 << 20, 'x')}};
  ASSERT_TRUE(store->append(big).has_value());
  ASSERT_TRUE(store->untidy());
  tidy_all(*store);
  ASSERT_TRUE(store->append(records(22, 22)).has_value());
  EXPECT_GE(fs::file_size(path() + "-wal"), 4u << 20) << "there is room again";
}

// A torn write: the log ends anywhere. What is recovered is a prefix of what was appended, whole batches only.
TEST_F(SqliteStoreTest, after_a_torn_write_whole_batches_remain) {
  const auto store = open(path());
  ASSERT_NE(store, nullptr);
  ASSERT_TRUE(store->recover().has_value());
  for (std::uint64_t lsn = 1; lsn <= 6; lsn += 3) ASSERT_TRUE(store->append(records(lsn, lsn + 2)).has_value());
  const auto size = written(path() + "-wal");
  std::size_t shorter = 0;
  std::size_t number = 0;
  for (std::uintmax_t cut = 0; cut <= size; cut += 512) {
    const std::string copy = (folder_ / cat("torn_", number++, ".db")).string();
    copy_as_crashed(path(), copy);
    fs::resize_file(copy + "-wal", cut);
    const auto torn = open(copy);
    ASSERT_NE(torn, nullptr) << cut;
    const auto recovered = torn->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    EXPECT_EQ(recovered->records.size() % 3, 0u) << cut;
    if (!recovered->records.empty()) expect_records(recovered->records, 1, recovered->records.size());
    shorter += recovered->records.size() < 6 ? 1 : 0;
  }
  EXPECT_GT(shorter, 0u);
}

}  // namespace
}  // namespace lockstep
