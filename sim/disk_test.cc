#include "sim/disk.h"

#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"
#include "journal/sqlite_store.h"
#include "sim/disk_vfs.h"

namespace lockstep::sim {
namespace {

std::string seen(Disk& disk, const std::string& name) {
  const Disk::File* const file = disk.file(name);
  return file == nullptr ? "absent" : file->seen;
}

// ---- the disk by itself

TEST(Disk, a_power_cut_leaves_all_or_nothing_of_what_was_not_synced_when_it_is_told_to) {
  for (const Left left : {Left::all, Left::nothing}) {
    Disk disk(Random(1), nullptr);
    const auto file = disk.open("a", true);
    ASSERT_EQ(disk.write(*file, 0, "one"), Io::done);
    ASSERT_EQ(disk.sync(*file, true), Io::done);
    ASSERT_EQ(disk.write(*file, 0, "two"), Io::done);
    ASSERT_NE(disk.open("b", true), nullptr);
    int calls = 0;
    disk.cut_power_when([&]() -> std::optional<Left> { return ++calls == 1 ? std::optional(left) : std::nullopt; });
    ASSERT_EQ(disk.sync(*file, false), Io::failed) << "the power fails before it has done anything";
    disk.power_on();
    EXPECT_EQ(disk.file("a")->seen, left == Left::all ? "two" : "one");
    EXPECT_EQ(disk.file("b") != nullptr, left == Left::all);
    std::string_view bytes;
    ASSERT_EQ(disk.read(*disk.file("a"), 0, 3, bytes), Io::done);
    EXPECT_EQ(calls, 1) << "a read changes nothing";
  }
}

TEST(Disk, what_was_synced_survives_a_power_cut_and_names_too) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Disk disk(Random(seed), nullptr);
    const auto file = disk.open("a", true);
    ASSERT_EQ(disk.write(*file, 0, "kept"), Io::done);
    ASSERT_EQ(disk.sync(*file, true), Io::done);
    ASSERT_EQ(disk.write(*file, 4, " or not"), Io::done);
    disk.cut_power();
    EXPECT_EQ(disk.write(*file, 0, "x"), Io::failed);  // nobody writes without power
    disk.power_on();
    EXPECT_EQ(seen(disk, "a").substr(0, 4), "kept");
  }
}

TEST(Disk, a_power_cut_keeps_loses_and_tears_what_was_not_synced) {
  std::map<std::string, int> told;
  bool whole = false;
  bool none = false;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Disk disk(Random(seed), [&](const std::string& name) { ++told[name]; });
    const auto file = disk.open("a", true);
    ASSERT_EQ(disk.write(*file, 0, std::string(16384, 'o')), Io::done);
    ASSERT_EQ(disk.sync(*file, true), Io::done);
    ASSERT_EQ(disk.write(*file, 0, std::string(16384, 'n')), Io::done);
    disk.cut_power();
    const std::string left = seen(disk, "a");
    whole = whole || left == std::string(16384, 'n');
    none = none || left == std::string(16384, 'o');
    EXPECT_EQ(left.size(), 16384u);
  }
  EXPECT_TRUE(whole);
  EXPECT_TRUE(none);
  EXPECT_GT(told["disk_torn_write"], 0);
  EXPECT_GT(told["disk_lost_unsynced"], 0);
  EXPECT_GT(told["disk_kept_unsynced"], 0);
}

TEST(Disk, the_end_of_a_process_loses_nothing_that_it_wrote) {
  Disk disk(Random(1), nullptr);
  const auto file = disk.open("a", true);
  ASSERT_EQ(disk.write(*file, 0, "written"), Io::done);
  const std::uint64_t before = disk.life();
  disk.kill();
  EXPECT_NE(disk.life(), before);
  EXPECT_EQ(seen(disk, "a"), "written");
}

TEST(Disk, a_file_that_was_removed_without_a_sync_may_be_back) {
  bool back = false;
  bool gone = false;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Disk disk(Random(seed), nullptr);
    const auto file = disk.open("a", true);
    ASSERT_EQ(disk.sync(*file, true), Io::done);
    ASSERT_EQ(disk.remove("a", false), Io::done);
    disk.cut_power();
    (disk.file("a") != nullptr ? back : gone) = true;
  }
  EXPECT_TRUE(back);
  EXPECT_TRUE(gone);
}

TEST(Disk, a_failed_sync_is_never_made_up_for) {
  for (const DiskFault fault : {DiskFault::sync_dropped, DiskFault::sync_kept}) {
    bool lost = false;
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
      Disk disk(Random(seed), nullptr);
      const auto file = disk.open("a", true);
      ASSERT_EQ(disk.write(*file, 0, "old"), Io::done);
      ASSERT_EQ(disk.sync(*file, true), Io::done);
      ASSERT_EQ(disk.write(*file, 0, "new"), Io::done);
      disk.plan(fault, 0);
      ASSERT_EQ(disk.sync(*file, false), Io::failed);
      EXPECT_TRUE(disk.take_sync_failed());
      EXPECT_TRUE(fault == DiskFault::sync_dropped || seen(disk, "a") == "new");
      ASSERT_EQ(disk.sync(*file, false), Io::done);  // says so, and there was nothing to write
      disk.cut_power();
      lost = lost || seen(disk, "a") == "old";
    }
    EXPECT_TRUE(lost);
  }
}

TEST(Disk, a_full_disk_takes_what_needs_no_room) {
  Disk disk(Random(1), nullptr);
  const auto file = disk.open("a", true);
  ASSERT_EQ(disk.write(*file, 0, "1234"), Io::done);
  disk.plan(DiskFault::full, 0);
  EXPECT_EQ(disk.write(*file, 2, "xyz"), Io::full);
  EXPECT_EQ(disk.write(*file, 0, "abcd"), Io::done);
  disk.repair();
  EXPECT_EQ(disk.write(*file, 2, "xyz"), Io::done);
}

TEST(Disk, syncs_that_lie_lose_what_they_said_was_synced) {
  bool lost = false;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Disk disk(Random(seed), nullptr);
    const auto file = disk.open("a-wal", true);
    ASSERT_EQ(disk.sync(*file, true), Io::done);
    disk.plan(DiskFault::lying_sync, 0);
    ASSERT_EQ(disk.write(*file, 0, "new"), Io::done);
    ASSERT_EQ(disk.sync(*file, false), Io::done);
    Disk left = disk.left_by_lies();
    lost = lost || seen(left, "a-wal").empty();
    EXPECT_EQ(seen(disk, "a-wal"), "new");
  }
  EXPECT_TRUE(lost);
}

TEST(Disk, while_it_lies_no_file_is_synced) {
  bool lost = false;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Disk disk(Random(seed), nullptr);
    const auto database = disk.open("a", true);
    const auto log = disk.open("a-wal", true);
    ASSERT_EQ(disk.write(*database, 0, "old"), Io::done);
    ASSERT_EQ(disk.sync(*database, true), Io::done);
    disk.plan(DiskFault::lying_sync, 0);
    ASSERT_EQ(disk.sync(*log, true), Io::done);
    ASSERT_EQ(disk.write(*database, 0, "new"), Io::done);
    ASSERT_EQ(disk.sync(*database, false), Io::done);
    EXPECT_TRUE(disk.lies());
    Disk left = disk.left_by_lies();
    lost = lost || seen(left, "a") == "old";
    EXPECT_EQ(seen(disk, "a"), "new");
  }
  EXPECT_TRUE(lost);
}

// ---- the journal's store on it

/// What a server does to its journal in three lives: appends in batches, a snapshot, a clean end.
class Scenario {
 public:
  explicit Scenario(Random random) : disk_(random, nullptr), vfs_(disk_, now_) {}
  Disk& disk() { return disk_; }

  /// Stops at the first error, as the server does. True when it came to its end.
  bool run() {
    for (int life = 0; life < 3; ++life) {
      if (!live(life)) return false;
    }
    return true;
  }
  /// What a start finds; an error when it could not start.
  Result<Recovered> recover() {
    const auto store = LOCKSTEP_TRY(SqliteStore::open("journal.db", vfs_.name().c_str()));
    auto recovered = store->recover();
    disk_.kill();  // its clean end would write the log back
    return recovered;
  }
  /// The first commit of a life.
  bool append_once() {
    const auto store = SqliteStore::open("journal.db", vfs_.name().c_str());
    if (!store) return end();
    const auto recovered = (*store)->recover();
    if (!recovered) return end();
    const Lsn last = (recovered->records.empty() ? recovered->snapshot_at : recovered->records.back().lsn).next();
    attempted.insert(last);
    const std::vector<Record> records{{last, cat("body ", last.value, "x")}};
    if (!(*store)->append(records)) return end();
    acknowledged = last;
    attempted.clear();
    disk_.kill();
    return true;
  }
  Lsn acknowledged;
  std::set<Lsn> attempted;

 private:
  bool live(int life) {
    auto store = SqliteStore::open("journal.db", vfs_.name().c_str());
    if (!store) return end();
    const auto recovered = (*store)->recover();
    if (!recovered) return end();
    Lsn last = recovered->records.empty() ? recovered->snapshot_at : recovered->records.back().lsn;
    for (int batch = 0; batch < 3; ++batch) {
      std::vector<Record> records;
      for (int i = 0; i <= batch * 3; ++i) {
        last = last.next();
        records.push_back({last, cat("body ", last.value, std::string(900, 'x'))});
      }
      attempted.insert(last);
      if (!(*store)->append(records)) return end();
      acknowledged = last;
      attempted.clear();
    }
    const std::vector<SnapshotRow> rows{{"t", cat("k", life), "v", Rev{last.value}}};
    if (!(*store)->snapshot({rows, last})) return end();
    while ((*store)->untidy()) {
      if (!(*store)->tidy()) return end();
    }
    return true;
  }
  bool end() {
    disk_.kill();
    return false;
  }

  Nanos now_ = 0;
  Disk disk_;
  DiskVfs vfs_;
};

void expect_sound(Scenario& scenario, const std::string& where) {
  const auto found = scenario.recover();
  ASSERT_TRUE(found.has_value()) << where << ": " << (found ? "" : found.error().message);
  const Lsn last = found->records.empty() ? found->snapshot_at : found->records.back().lsn;
  EXPECT_TRUE(last == scenario.acknowledged || scenario.attempted.contains(last))
      << where << ": " << last.value << ", acknowledged " << scenario.acknowledged.value;
  for (const Record& each : found->records) {
    EXPECT_TRUE(each.body.starts_with(cat("body ", each.lsn.value, "x"))) << where;
  }
}

/// Fails call 0, 1, 2, … until the scenario comes through untouched.
template <class Then>
int at_every_call(DiskFault fault, Then then) {
  for (int call = 0;; ++call) {
    Scenario scenario(Random(static_cast<std::uint64_t>(call) + 1));
    scenario.disk().plan(fault, call);
    const bool through = scenario.run();
    const bool met = scenario.disk().is_off() || scenario.disk().take_failed();
    if (through && !met) return call;
    then(scenario, call);
    if (testing::Test::HasFailure()) return call;
  }
}

// §4.6: I/O call number n fails, for every n, once and for good; what is found afterwards holds all that was
// acknowledged.
TEST(JournalOnDisk, every_call_may_fail_once_or_for_good) {
  for (const DiskFault fault : {DiskFault::error, DiskFault::error_lasting}) {
    const int calls = at_every_call(fault, [](Scenario& scenario, int call) {
      scenario.disk().repair();
      scenario.disk().kill();
      expect_sound(scenario, cat("call ", call));
    });
    EXPECT_GT(calls, 100);
  }
}

TEST(JournalOnDisk, the_power_may_fail_at_every_call) {
  const int calls = at_every_call(DiskFault::power_cut, [](Scenario& scenario, int call) {
    scenario.disk().power_on();
    expect_sound(scenario, cat("call ", call));
  });
  EXPECT_GT(calls, 100);
}

// The second start meets a power cut at every call, the third finds everything.
TEST(JournalOnDisk, the_power_may_fail_again_at_every_call_of_the_recovery) {
  for (int call = 0;; ++call) {
    Scenario scenario(Random(static_cast<std::uint64_t>(call) + 1));
    scenario.disk().plan(DiskFault::power_cut, 150);
    ASSERT_FALSE(scenario.run());
    scenario.disk().power_on();
    scenario.disk().plan(DiskFault::power_cut, call);
    const auto found = scenario.recover();
    if (!scenario.disk().is_off()) {
      EXPECT_GT(call, 10);
      break;
    }
    scenario.disk().power_on();
    expect_sound(scenario, cat("call ", call));
  }
}

// A failed sync may have dropped what it failed on, and a second one would say nothing: the store says so, and what the
// next start finds stays even if the power goes after its first commit.
TEST(JournalOnDisk, a_failed_sync_loses_nothing_that_was_acknowledged) {
  for (const DiskFault fault : {DiskFault::sync_dropped, DiskFault::sync_kept}) {
    at_every_call(fault, [](Scenario& scenario, int call) {
      expect_sound(scenario, cat("call ", call));
      if (!scenario.append_once()) ADD_FAILURE() << "the life after a failed sync at call " << call;
      scenario.disk().cut_power();
      scenario.disk().power_on();
      expect_sound(scenario, cat("after call ", call));
    });
  }
}

TEST(JournalOnDisk, a_full_disk_ends_the_process_and_loses_nothing) {
  int met = 0;
  at_every_call(DiskFault::full, [&](Scenario& scenario, int call) {
    ++met;
    scenario.disk().repair();
    scenario.disk().kill();
    expect_sound(scenario, cat("call ", call));
  });
  EXPECT_GT(met, 0);
}

// Syncs of the database lie too: rows, records and marks are each of any moment. A start refuses the mix, or finds the
// rows of one snapshot and records that follow them, to the end of a batch.
TEST(JournalOnDisk, old_and_new_pages_are_refused_or_are_a_state_that_there_was) {
  constexpr std::uint64_t records = 5;
  constexpr int rows = 40;
  std::map<std::string, int> met;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    Random random(seed);
    const Nanos now = 0;
    Disk disk(random.fork(), nullptr);
    const DiskVfs vfs(disk, now);
    const std::int64_t lies_from = random.between(0, 5);
    std::vector<bool> is_gone;  // one of the rows, in the snapshot of each life
    Lsn last;
    for (std::int64_t life = 0; life <= 6; ++life) {
      if (life == lies_from) disk.plan(DiskFault::lying_sync, static_cast<int>(random.between(0, 30)));
      const auto store = SqliteStore::open("journal.db", vfs.name().c_str());
      ASSERT_TRUE(store.has_value()) << store.error().message;
      ASSERT_TRUE((*store)->recover().has_value());
      std::vector<Record> batch;
      for (std::uint64_t i = 0; i < records; ++i) {
        last = last.next();
        batch.push_back({last, cat("body ", last.value, std::string(900, 'x'))});
      }
      ASSERT_TRUE((*store)->append(batch).has_value());  // after what earlier lives left in the log is written back
      if (life == 6) {
        disk.kill();
        break;
      }
      std::vector<SnapshotRow> piece;
      is_gone.push_back(random.chance(250'000));
      for (int row = 0; row < rows; ++row) {
        if (row == 7 && is_gone.back()) {
          piece.push_back({"t", cat("k", row), std::nullopt, Rev{}});
        } else {
          piece.push_back({"t", cat("k", row), std::string(300, static_cast<char>('a' + life)), Rev{last.value}});
        }
      }
      ASSERT_TRUE((*store)->snapshot({piece, last}).has_value());
      if (random.chance(500'000)) disk.kill();  // or a clean end, which writes the log back
    }
    Disk left = disk.left_by_lies();
    const DiskVfs on_left(left, now);
    const auto store = SqliteStore::open("journal.db", on_left.name().c_str());
    const auto found = store ? (*store)->recover() : Result<Recovered>(store.error());
    if (!found) {
      EXPECT_EQ(found.error().code, ErrorCode::data_loss) << seed << ": " << found.error().message;
      const bool set = found.error().message.find("rows of the snapshot are not") != std::string::npos;
      ++met[set ? "refused by the set" : "refused"];
      continue;
    }
    const Lsn end = found->records.empty() ? found->snapshot_at : found->records.back().lsn;
    ++met[end == last ? "newest" : end == Lsn{} ? "nothing" : "older"];
    EXPECT_EQ(end.value % records, 0u) << seed;
    EXPECT_EQ(found->snapshot_at.value % records, 0u) << seed;
    const std::uint64_t snapshots = found->snapshot_at.value / records;
    ASSERT_EQ(found->rows.size(), snapshots == 0 ? 0u : rows - (is_gone[snapshots - 1] ? 1 : 0)) << seed;
    for (const SnapshotRow& row : found->rows) {
      EXPECT_EQ(row.value, std::string(300, static_cast<char>('a' + snapshots - 1))) << seed << " " << row.key;
    }
  }
  EXPECT_GT(met["refused by the set"], 0);
  EXPECT_GT(met["refused"], 0);
  EXPECT_GT(met["older"], 0);
  EXPECT_GT(met["newest"], 0);
}

}  // namespace
}  // namespace lockstep::sim
