// Journals that earlier versions wrote are read, and newer ones are refused and left as they are. The journals lie as
// SQL text below tests/golden/: a difference in them can be read, and they do not depend on how SQLite lays out its
// pages. A file there is never changed; a new format gets new ones.

#include <sqlite3.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "cli/journal.h"
#include "journal/sqlite_store.h"
#include "sim/disk.h"
#include "sim/disk_vfs.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Golden_journal : public testing::Test {
 protected:
  Golden_journal() {
    std::string name = (fs::temp_directory_path() / "lockstep_golden_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~Golden_journal() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  /// A database made of a golden file, and of more SQL after it.
  std::string database(const std::string& golden, const std::string& more = {}) const {
    const std::string path = (folder_ / cat(golden, ".db")).string();
    const std::string sql = bytes_of(fs::path(LOCKSTEP_SOURCE_DIR) / "tests/golden" / cat(golden, ".sql"));
    EXPECT_FALSE(sql.empty()) << golden;
    sqlite3* db = nullptr;
    EXPECT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(db, cat("BEGIN;", sql, ";COMMIT;", more).c_str(), nullptr, nullptr, &message), SQLITE_OK)
        << message;
    sqlite3_free(message);
    sqlite3_close(db);
    return path;
  }

  struct State {
    Recovered recovered;
    Orchestrator machine{settings_of(1)};
  };
  static std::unique_ptr<State> read(const std::string& path) {
    auto state = std::make_unique<State>();
    auto store = SqliteStore::open(path);
    EXPECT_TRUE(store.has_value()) << (store ? "" : store.error().message);
    if (!store) return state;
    auto recovered = (*store)->recover();
    EXPECT_TRUE(recovered.has_value()) << (recovered ? "" : recovered.error().message);
    if (!recovered) return state;
    state->recovered = *std::move(recovered);
    const auto last = state->machine.recover(state->recovered);
    EXPECT_TRUE(last.has_value()) << (last ? "" : last.error().message);
    return state;
  }
  /// The image that the journal is about: done, stored, and on its worker's record.
  static void expect_the_image(const Tables& tables) {
    const processing::Request& request = tables.processing.requests.at("req_000001_000001");
    EXPECT_EQ(request.state, processing::RequestState::completed);
    EXPECT_EQ(request.inference.inference_parameters.prompt, "a lighthouse");
    EXPECT_EQ(request.inference.inference_parameters.seed, 920901611847508952u);
    EXPECT_FALSE(request.output.has_value());
    EXPECT_FALSE(request.batch.has_value());
    const postprocessing::Output& output = tables.postprocessing.outputs.at("req_000001_000001/00");
    EXPECT_EQ(output.image.sha256, "7ac6e97581d633df6908873e04c0b4a7592f0058ca4acd0d8e8a967921787962");
    EXPECT_EQ(tables.processing.jobs.at("req_000001_000001/00").stage, processing::JobStage::completed);
    EXPECT_EQ(tables.model.models.size(), 3u);
    EXPECT_EQ(tables.model.residencies.at("worker_0/tiny-sdxl").state, model::ResidencyState::loaded);
    EXPECT_EQ(tables.liveness.workers.at("worker_0").state, WorkerState::ready);
    EXPECT_EQ(tables.liveness.workers.at("worker_0").origin, Origin::spawned);
  }

  /// Each row of each table, and the version.
  static std::vector<std::string> content(const std::string& path) {
    std::vector<std::string> out;
    sqlite3* db = nullptr;
    EXPECT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
    const auto add = [](void* to, int columns, char** values, char**) {
      std::string row;
      for (int i = 0; i < columns; ++i) row += cat(values[i], "|");
      static_cast<std::vector<std::string>*>(to)->push_back(row);
      return 0;
    };
    for (const char* query : {"PRAGMA user_version", "SELECT * FROM mark ORDER BY name", "SELECT * FROM snapshot_row",
                              "SELECT * FROM record"}) {
      EXPECT_EQ(sqlite3_exec(db, query, add, &out, nullptr), SQLITE_OK) << query;
    }
    sqlite3_close(db);
    return out;
  }

  fs::path folder_;
};

TEST_F(Golden_journal, version_1_as_it_was_written_last_gives_the_state_that_it_had) {
  const auto state = read(database("journal_1_now"));
  EXPECT_EQ(state->machine.rev(), Rev{36});
  EXPECT_EQ(state->machine.digest(), "7bc05e718c84b31b80ff9324328ceb225ffb713225a9a63e2ff46d6c9d8a9d27");
  expect_the_image(state->machine.tables());
  EXPECT_EQ(state->recovered.records.size(), 36u);
}

TEST_F(Golden_journal, a_snapshot_of_it_and_the_records_after_give_the_same) {
  const auto state = read(database("journal_1_snapshot"));
  EXPECT_EQ(state->recovered.snapshot_at, Lsn{30});
  EXPECT_EQ(state->recovered.rows.size(), 26u);
  EXPECT_EQ(state->recovered.records.size(), 6u);
  EXPECT_EQ(state->recovered.past.size(), 30u);
  EXPECT_EQ(state->machine.digest(), read(database("journal_1_now"))->machine.digest());
}

// Commits of one sync in a packed row; it becomes version 3 as version 1 does.
TEST_F(Golden_journal, version_2_gives_the_same_rows_and_takes_new_records) {
  const std::string path = database("journal_2");
  const auto rows = dump(read(database("journal_1_now"))->machine.tables());
  const auto state = read(path);
  EXPECT_EQ(state->recovered.past.size(), 30u);
  EXPECT_EQ(state->recovered.records.size(), 11u);
  EXPECT_EQ(state->machine.rev(), Rev{41});
  EXPECT_EQ(dump(state->machine.tables()), rows);
  {
    auto store = SqliteStore::open(path);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE((*store)->recover().has_value());
    const std::vector<Record> next{{Lsn{42}, R"({"rev":42,"time":1,"changes":[],"events":[]})"},
                                   {Lsn{43}, R"({"rev":43,"time":1,"changes":[],"events":[]})"}};
    ASSERT_TRUE((*store)->append(next).has_value());
  }
  EXPECT_EQ(content(path).front(), "3|");
  const auto again = read(path);
  EXPECT_EQ(again->machine.rev(), Rev{43});
  EXPECT_EQ(dump(again->machine.tables()), rows);
}

TEST_F(Golden_journal, version_3_gives_the_same_state) {
  const auto state = read(database("journal_3"));
  EXPECT_EQ(state->recovered.snapshot_at, Lsn{30});
  EXPECT_EQ(state->recovered.rows.size(), 26u);
  EXPECT_EQ(state->recovered.past.size(), 30u);
  EXPECT_EQ(state->machine.rev(), Rev{36});
  EXPECT_EQ(state->machine.digest(), "7bc05e718c84b31b80ff9324328ceb225ffb713225a9a63e2ff46d6c9d8a9d27");
}

TEST_F(Golden_journal, version_3_is_written_as_it_lies_there) {
  const std::string golden = database("journal_3");
  const auto lies_there = content(golden);
  const Recovered all = read(golden)->recovered;
  std::vector<Record> records = all.past;
  records.insert(records.end(), all.records.begin(), all.records.end());
  const std::string path = (folder_ / "written.db").string();
  {
    auto store = SqliteStore::open(path);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE((*store)->recover().has_value());
    // One commit in a row; pieces follow rev 30 and 33.
    const std::vector<SnapshotRow> first(all.rows.begin(), all.rows.begin() + 10);
    const std::vector<SnapshotRow> others(all.rows.begin() + 10, all.rows.end());
    for (const Record& record : records) {
      ASSERT_TRUE((*store)->append(std::span(&record, 1)).has_value());
      Status piece;
      if (record.lsn == Lsn{30}) piece = (*store)->snapshot({first, std::nullopt});
      if (record.lsn == Lsn{33}) piece = (*store)->snapshot({others, Lsn{30}});
      ASSERT_TRUE(piece.has_value()) << piece.error().message;
    }
  }
  EXPECT_EQ(content(path), lies_there);
}

// By the first write, not by a look or a start that comes to nothing.
TEST_F(Golden_journal, version_1_becomes_version_3_with_the_first_write) {
  const std::string path = database("journal_1_snapshot");
  const auto before = content(path);
  EXPECT_EQ(before.front(), "1|");
  read(path);
  EXPECT_EQ(content(path), before);
  {
    auto store = SqliteStore::open(path);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE((*store)->recover().has_value());
    const std::vector<Record> next{{Lsn{37}, R"({"rev":37,"time":1,"changes":[],"events":[]})"}};
    ASSERT_TRUE((*store)->append(next).has_value());
  }
  const auto after = content(path);
  EXPECT_EQ(after.front(), "3|");
  EXPECT_EQ(after.size(), before.size() + 5 + 1);
  const auto state = read(path);
  EXPECT_EQ(state->recovered.rows.size(), 26u);
  EXPECT_EQ(state->machine.rev(), Rev{37});
  // From now on its rows are one set.
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "DELETE FROM snapshot_row WHERE tbl='model.models' AND key='tiny-sdxl'", nullptr, nullptr,
                         nullptr),
            SQLITE_OK);
  ASSERT_EQ(sqlite3_changes(db), 1);
  sqlite3_close(db);
  const auto refused = (*SqliteStore::open(path))->recover();
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("expected 26 rows"), std::string::npos) << refused.error().message;
}

/// The start of a server on a simulated disk: a commit, and a snapshot that moves the mark. Where it came to.
Lsn start_and_commit(sim::Disk& disk, const sim::DiskVfs& vfs) {
  const auto run = [&]() -> Result<Lsn> {
    const auto store = LOCKSTEP_TRY(SqliteStore::open("journal.db", vfs.name().c_str()));
    const Recovered recovered = LOCKSTEP_TRY(store->recover());
    const Lsn next = recovered.records.back().lsn.next();
    const std::vector<Record> records{{next, cat(R"({"rev":)", next.value, R"(,"time":1,"changes":[],"events":[]})")}};
    LOCKSTEP_TRY_STATUS(store->append(records));
    static_cast<void>(store->snapshot({{recovered.rows.front()}, Lsn{31}}));
    return next;  // whatever came of the piece, the commit is acknowledged
  };
  const auto last = run();
  disk.kill();
  return last.value_or(Lsn{});
}

// From version 1 to version 3, with a commit and a snapshot after it: a power cut or an error at every call.
TEST_F(Golden_journal, an_upgrade_that_is_cut_anywhere_loses_nothing) {
  const std::string before = bytes_of(database("journal_1_snapshot"));
  for (const sim::DiskFault fault : {sim::DiskFault::power_cut, sim::DiskFault::error}) {
    std::map<char, int> versions;
    for (int call = 0;; ++call) {
      const std::string where = cat("fault ", static_cast<int>(fault), " at call ", call);
      const Nanos now = 0;
      sim::Disk disk(sim::Random(static_cast<std::uint64_t>(call) + 1), nullptr);
      const auto file = disk.open("journal.db", true);
      ASSERT_EQ(disk.write(*file, 0, before), sim::Io::done);
      ASSERT_EQ(disk.sync(*file, true), sim::Io::done);
      disk.plan(fault, call);
      const sim::DiskVfs vfs(disk, now);
      const Lsn acknowledged = start_and_commit(disk, vfs);
      const bool met = disk.is_off() || disk.take_failed();
      disk.power_on();
      disk.repair();
      Lsn last;
      {
        const auto store = SqliteStore::open("journal.db", vfs.name().c_str());
        const auto found = store ? (*store)->recover() : Result<Recovered>(store.error());
        ASSERT_TRUE(found.has_value()) << where << ": " << found.error().message;
        EXPECT_EQ(found->rows.size(), 26u) << where;
        last = found->records.back().lsn;
        Orchestrator machine(settings_of(1));
        ASSERT_TRUE(machine.recover(*found).has_value()) << where;
        if (last == Lsn{36}) {
          EXPECT_EQ(machine.digest(), "7bc05e718c84b31b80ff9324328ceb225ffb713225a9a63e2ff46d6c9d8a9d27") << where;
        }
        expect_the_image(machine.tables());
      }
      ASSERT_TRUE(last == Lsn{36} || last == Lsn{37}) << where;
      EXPECT_GE(last, acknowledged) << where;
      ++versions[disk.file("journal.db")->seen[63]];  // of user_version; the end of the store wrote the log back
      if (call % 8 == 0 || !met) {
        EXPECT_EQ(start_and_commit(disk, vfs), last.next()) << where;  // it goes on from what is there
      }
      if (!met) {
        EXPECT_EQ(acknowledged, Lsn{37});
        break;
      }
    }
    EXPECT_GT(versions[1], 0);
    EXPECT_GT(versions[3], 0);
    EXPECT_EQ(versions.size(), 2u);
  }
}

// Rows without what structs got later, also where a member is not optional today: the worker's origin and token.
TEST_F(Golden_journal, rows_that_the_first_release_wrote_are_read_with_defaults) {
  const std::string path = database("journal_1_first");
  const auto state = read(path);
  EXPECT_EQ(state->machine.rev(), Rev{36});
  EXPECT_EQ(state->machine.digest(), "74b4a2bbece1dcff2e58406163adf502df5b49ba119396fe951de5f21703143b");
  const Tables& tables = state->machine.tables();
  expect_the_image(tables);
  EXPECT_EQ(tables.identity.at("self").version, "0.1.0");
  EXPECT_EQ(tables.liveness.workers.at("worker_0").token_sha256, "");
  EXPECT_FALSE(tables.model.models.at("tiny-sdxl").facts.has_value());
  EXPECT_EQ(tables.model.usages.size(), 0u);

  // It goes on from there: a snapshot writes the rows as they are now.
  auto store = SqliteStore::open(path);
  ASSERT_TRUE(store.has_value()) << store.error().message;
  ASSERT_TRUE((*store)->recover().has_value());
  Orchestrator& machine = state->machine;
  machine.begin_snapshot();
  const SnapshotPiece all{machine.take_snapshot_rows(1000, 1 << 20), Lsn{36}};
  ASSERT_TRUE((*store)->snapshot(all).has_value());
  store->reset();
  const auto again = read(path);
  EXPECT_EQ(again->recovered.snapshot_at, Lsn{36});
  EXPECT_EQ(again->machine.digest(), machine.digest());
}

// The first write makes it version 3, in one transaction with the table it needs; what was there stays as it is.
TEST_F(Golden_journal, a_journal_of_version_1_takes_new_records_and_is_version_3_then) {
  const std::string path = database("journal_1_snapshot");
  const auto rows = dump(read(path)->machine.tables());
  {
    auto store = SqliteStore::open(path);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE((*store)->recover().has_value());
    std::vector<Record> more;
    for (const std::uint64_t rev : {37u, 38u}) {
      Commit commit;
      commit.rev = Rev{rev};
      commit.events.push_back({"note", "", RawJson{"{}"}});
      more.push_back({Lsn{rev}, encode(commit)});
    }
    ASSERT_TRUE((*store)->append(more).has_value());
  }
  const auto state = read(path);
  EXPECT_EQ(state->recovered.past.size(), 30u);
  EXPECT_EQ(state->recovered.records.size(), 8u);
  EXPECT_EQ(state->machine.rev(), Rev{38});
  EXPECT_EQ(dump(state->machine.tables()), rows);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  std::string version;
  const auto keep = [](void* to, int, char** values, char**) {
    *static_cast<std::string*>(to) = values[0];
    return 0;
  };
  EXPECT_EQ(sqlite3_exec(db, "PRAGMA user_version", keep, &version, nullptr), SQLITE_OK);
  sqlite3_close(db);
  EXPECT_EQ(version, "3");
}

TEST_F(Golden_journal, a_newer_format_is_refused_with_both_versions_and_left_as_it_is) {
  for (const std::string mode : {"DELETE", "WAL"}) {
    const std::string path = database("journal_1_now", cat("PRAGMA user_version=4;PRAGMA journal_mode=", mode, ";"));
    const std::string before = bytes_of(path);
    for (const auto& opened : {SqliteStore::open(path), SqliteStore::open_to_read(path)}) {
      ASSERT_FALSE(opened.has_value());
      EXPECT_EQ(opened.error().code, ErrorCode::data_loss);
      for (const char* said : {"format version 4", "this lockstep reads versions 1 to 3", "Nothing was changed in it",
                               "start the newer lockstep that wrote it", "or choose another data directory"}) {
        EXPECT_NE(opened.error().message.find(said), std::string::npos) << opened.error().message;
      }
    }
    EXPECT_TRUE(bytes_of(path) == before) << mode;
    fs::remove(path);
  }
}

// A newer lockstep was killed: what it committed is in its log, and must be there when it comes back.
TEST_F(Golden_journal, the_log_of_a_newer_format_is_left_as_it_is) {
  const std::string path = database("journal_1_now", "PRAGMA journal_mode=WAL;");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE;PRAGMA user_version=4", nullptr, nullptr, nullptr),
            SQLITE_OK);
  const std::string killed = (folder_ / "killed.db").string();
  fs::copy_file(path, killed);
  fs::copy_file(path + "-wal", killed + "-wal");
  sqlite3_close(db);
  const std::string log = bytes_of(killed + "-wal");
  const std::string before = bytes_of(killed);
  ASSERT_FALSE(log.empty());
  EXPECT_FALSE(SqliteStore::open(killed).has_value());
  EXPECT_TRUE(bytes_of(killed) == before);
  EXPECT_TRUE(bytes_of(killed + "-wal") == log);
}

TEST_F(Golden_journal, who_only_reads_changes_nothing) {
  for (const std::string mode : {"DELETE", "WAL"}) {
    const std::string path = database("journal_1_snapshot", cat("PRAGMA journal_mode=", mode, ";"));
    const std::string before = bytes_of(path);
    {
      const auto store = SqliteStore::open_to_read(path);
      ASSERT_TRUE(store.has_value()) << store.error().message;
      const auto recovered = (*store)->recover();
      ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
      EXPECT_EQ(recovered->records.size(), 6u);
    }
    EXPECT_TRUE(bytes_of(path) == before) << mode;
    EXPECT_FALSE(fs::exists(path + "-wal")) << mode;
    fs::remove(path);
  }
  const auto absent = SqliteStore::open_to_read((folder_ / "none.db").string());
  ASSERT_FALSE(absent.has_value());
  EXPECT_EQ(absent.error().code, ErrorCode::not_found);
  EXPECT_FALSE(fs::exists(folder_ / "none.db"));
}

TEST_F(Golden_journal, a_copy_holds_the_same_and_never_replaces_a_file) {
  const std::string path = database("journal_1_snapshot");
  const std::string copy = (folder_ / "copy.db").string();
  {
    const auto store = SqliteStore::open(path);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    ASSERT_TRUE((*store)->recover().has_value());
    const auto bytes = (*store)->backup(copy);
    ASSERT_TRUE(bytes.has_value()) << bytes.error().message;
    EXPECT_EQ(*bytes, fs::file_size(copy));
    const auto again = (*store)->backup(copy);
    ASSERT_FALSE(again.has_value());
    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
    EXPECT_NE(again.error().message.find(copy), std::string::npos) << again.error().message;
    const auto nowhere = (*store)->backup((folder_ / "none/copy.db").string());
    ASSERT_FALSE(nowhere.has_value());
    EXPECT_EQ(nowhere.error().code, ErrorCode::unavailable);
    // Nobody minds: the journal goes on.
    const std::vector<Record> next{{Lsn{37}, R"({"rev":37,"time":1,"changes":[],"events":[]})"}};
    ASSERT_TRUE((*store)->append(next).has_value());
  }
  EXPECT_FALSE(fs::exists(copy + ".part"));
  EXPECT_EQ(read(copy)->machine.rev(), Rev{36});
  EXPECT_EQ(read(copy)->machine.digest(), read(database("journal_1_now"))->machine.digest());
  EXPECT_EQ(read(path)->machine.rev(), Rev{37});
}

TEST_F(Golden_journal, a_dump_has_the_rows_and_records_of_the_range) {
  const auto store = SqliteStore::open_to_read(database("journal_1_snapshot"));
  ASSERT_TRUE(store.has_value()) << store.error().message;
  const auto recovered = (*store)->recover();
  ASSERT_TRUE(recovered.has_value());
  const auto lines = cli::dump_text(*recovered, Rev{29}, Rev{32}, true);
  ASSERT_TRUE(lines.has_value()) << lines.error().message;
  std::vector<std::string> kinds;
  std::size_t begin = 0;
  for (std::size_t end = 0; (end = lines->find('\n', begin)) != std::string::npos; begin = end + 1) {
    kinds.push_back(lines->substr(begin, lines->find(',', lines->find(',', begin) + 1) - begin));
  }
  std::vector<std::string> records;
  for (const std::string& each : kinds) {
    if (each.starts_with(R"({"kind":"record")")) records.push_back(each);
  }
  EXPECT_EQ(records, (std::vector<std::string>{R"({"kind":"record","rev":29)", R"({"kind":"record","rev":30)",
                                               R"({"kind":"record","rev":31)", R"({"kind":"record","rev":32)"}));
  EXPECT_GT(kinds.size(), records.size()) << "rows that were changed at 29 and 30";
  EXPECT_NE(lines->find(R"("rev":30,"past":true,"commit":{"rev":30,)"), std::string::npos);
  EXPECT_NE(lines->find(R"("rev":31,"past":false,"commit":{"rev":31,)"), std::string::npos);
  const auto words = cli::dump_text(*recovered, Rev{32}, Rev{32}, false);
  EXPECT_EQ(words.value_or(""), "record 32  2026-11-28T08:13:02.157Z\n  delete  transactions.decisions  tx_1_3\n");
}

}  // namespace
}  // namespace lockstep::design
