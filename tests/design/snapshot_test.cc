// Recovery from the real store: a crash at any point of a snapshot gives the state that was acknowledged.

#include <cstdlib>
#include <filesystem>
#include <set>

#include "journal/sqlite_store.h"
#include "runtime/upkeep.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

namespace fs = std::filesystem;

class Design_snapshot : public testing::Test {
 protected:
  Design_snapshot() {
    std::string name = (fs::temp_directory_path() / "lockstep_recovery_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~Design_snapshot() override { fs::remove_all(folder_); }
  void SetUp() override {
    ASSERT_FALSE(folder_.empty());
    auto opened = SqliteStore::open(path());
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    store_ = *std::move(opened);
    ASSERT_TRUE(store_->recover().has_value());
  }
  std::string path() const { return (folder_ / "journal.db").string(); }

  /// Everything that the stage committed since the last call is on disk.
  void append() {
    const std::vector<Record> batch(stage_.journal.begin() + static_cast<std::ptrdiff_t>(appended_),
                                    stage_.journal.end());
    if (batch.empty()) return;
    appended_ = stage_.journal.size();
    upkeep_.committed(batch.size());
    ASSERT_TRUE(store_->append(batch).has_value());
  }
  /// What the disk holds at this instant gives the state that the stage has.
  void expect_survives_a_crash(const std::string& when) {
    const std::string copy = (folder_ / cat("crash_", ++crashes_, ".db")).string();
    fs::copy_file(path(), copy);
    fs::copy_file(path() + "-wal", copy + "-wal");
    auto store = SqliteStore::open(copy);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    const auto recovered = (*store)->recover();
    ASSERT_TRUE(recovered.has_value()) << when << ": " << recovered.error().message;
    Orchestrator again(settings_of(1));
    const auto last = again.recover(*recovered);
    ASSERT_TRUE(last.has_value()) << when << ": " << last.error().message;
    EXPECT_EQ(last->value, stage_.journal.size()) << when;
    EXPECT_EQ(again.digest(), stage_.machine.digest()) << when;
    marks_.insert(recovered->snapshot_at.value);
    for (const SnapshotRow& row : recovered->rows) {
      newer_than_the_mark_ += row.mod_rev.value > recovered->snapshot_at.value ? 1 : 0;
    }
  }
  void piece() {
    const auto next = upkeep_.next(stage_.machine, Lsn{stage_.journal.size()});
    ASSERT_TRUE(next.has_value());
    const Status written = store_->snapshot(*next);
    ASSERT_TRUE(written.has_value()) << written.error().message;
    ++pieces_;
  }
  void snapshot_to_its_end(const std::string& when) {
    while (upkeep_.due()) {
      piece();
      expect_survives_a_crash(cat(when, ", after piece ", pieces_));
    }
  }

  fs::path folder_;
  Stage stage_{settings_of(1)};
  std::unique_ptr<SqliteStore> store_;
  Upkeep upkeep_{0, {.commits = 1'000'000, .piece_rows = 1}};
  std::size_t appended_ = 0;
  int crashes_ = 0;
  int pieces_ = 0;
  std::set<std::uint64_t> marks_;
  std::size_t newer_than_the_mark_ = 0;
};

// The mark moves with the last piece. Until then rows of several ages lie side by side, and replay from the old mark
// brings them all to the same one; also where commits change, delete and make rows between two pieces.
TEST_F(Design_snapshot, a_crash_after_any_piece_of_a_snapshot_gives_the_state_that_was_live) {
  stage_.ready();
  append();
  upkeep_.ask();
  snapshot_to_its_end("first snapshot");
  const int first = pieces_;
  EXPECT_GE(first, 3);

  stage_.generate(1);
  stage_.until_inferring();
  append();
  upkeep_.ask();
  piece();
  expect_survives_a_crash("a run began, one piece");
  stage_.finish_image();
  append();
  expect_survives_a_crash("commits after a piece");
  piece();
  expect_survives_a_crash("two pieces");
  stage_.generate(2);  // rows that the snapshot is not about
  append();
  expect_survives_a_crash("rows that came while it was taken");
  snapshot_to_its_end("second snapshot");
  EXPECT_GE(pieces_ - first, 4);
  EXPECT_GT(newer_than_the_mark_, 0u) << "no cut left a row that is newer than the mark: this proves nothing";

  const std::size_t before = stage_.journal.size();
  stage_.generate(3);
  append();
  ASSERT_GT(stage_.journal.size(), before);
  upkeep_.ask();
  snapshot_to_its_end("third snapshot");
  EXPECT_EQ(marks_.size(), 4u);  // none, and one of each snapshot
  EXPECT_EQ(*marks_.rbegin(), stage_.journal.size());
}

// Work that clears up is cut as well: what is forgotten is never needed, and a log that is written back is still there.
TEST_F(Design_snapshot, a_crash_after_any_step_of_clearing_up_gives_the_state_that_was_live) {
  stage_.ready();
  append();
  std::vector<Record> filler;
  const std::size_t first = stage_.journal.size() + 1;
  for (std::size_t lsn = first; lsn < first + SqliteStore::past_records_max + 600; ++lsn) {
    Commit commit;
    commit.rev = Rev{lsn};
    commit.events.push_back({"note", "", RawJson{"{}"}});
    filler.push_back({Lsn{lsn}, encode(commit)});
  }
  for (std::span<const Record> left = filler; !left.empty(); left = left.subspan(50)) {
    ASSERT_TRUE(store_->append(left.first(50)).has_value());
  }
  const Lsn last = filler.back().lsn;
  stage_.machine.begin_snapshot();
  ASSERT_TRUE(store_->snapshot({stage_.machine.take_snapshot_rows(1000, 1 << 20), last}).has_value());
  const auto rows = dump(stage_.machine.tables());
  int steps = 0;
  for (; store_->untidy(); ++steps) {
    ASSERT_LT(steps, 20);
    ASSERT_TRUE(store_->tidy().has_value());
    const std::string copy = (folder_ / cat("tidy_", steps, ".db")).string();
    fs::copy_file(path(), copy);
    fs::copy_file(path() + "-wal", copy + "-wal");
    auto store = SqliteStore::open(copy);
    ASSERT_TRUE(store.has_value()) << store.error().message;
    const auto recovered = (*store)->recover();
    ASSERT_TRUE(recovered.has_value()) << recovered.error().message;
    Orchestrator again(settings_of(1));
    ASSERT_EQ(again.recover(*recovered), last);
    EXPECT_EQ(dump(again.tables()), rows);
  }
  EXPECT_GE(steps, 4);  // the log, and three times 250 records
  EXPECT_EQ(store_->recover()->past.size(), SqliteStore::past_records_max);
}

}  // namespace
}  // namespace lockstep::design
