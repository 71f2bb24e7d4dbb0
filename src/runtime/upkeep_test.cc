#include "runtime/upkeep.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

/// Has `changed` rows of ten bytes to save.
struct Rows {
  std::size_t changed = 0;
  std::size_t unsaved = 0;
  int begun = 0;

  void begin_snapshot() {
    ++begun;
    unsaved = std::exchange(changed, 0);
  }
  std::vector<SnapshotRow> take_snapshot_rows(std::size_t rows_max, std::size_t bytes_max) {
    const std::size_t count = std::min({unsaved, rows_max, (bytes_max + 9) / 10});
    unsaved -= count;
    return std::vector<SnapshotRow>(count, {"t", "key", "value", Rev{1}});
  }
  std::size_t snapshot_rows_left() const { return unsaved; }
};

constexpr UpkeepLimits limits{.commits = 100, .piece_rows = 10, .piece_bytes = 1000};

/// The sizes of all pieces until the mark moves.
std::vector<std::size_t> pieces(Upkeep& upkeep, Rows& machine, Lsn applied, Lsn expected) {
  std::vector<std::size_t> sizes;
  while (const auto piece = upkeep.next(machine, applied)) {
    sizes.push_back(piece->rows.size());
    applied = applied.next();
    if (!piece->at) continue;
    EXPECT_EQ(*piece->at, expected);
    return sizes;
  }
  ADD_FAILURE() << "the mark did not move";
  return sizes;
}

TEST(Upkeep, a_snapshot_is_due_after_so_many_commits_and_marks_where_it_began) {
  Rows machine{.changed = 25};
  Upkeep upkeep(0, limits);
  upkeep.committed(99);
  EXPECT_FALSE(upkeep.next(machine, Lsn{99}));
  upkeep.committed(1);
  EXPECT_EQ(pieces(upkeep, machine, Lsn{100}, Lsn{100}), (std::vector<std::size_t>{10, 10, 5}));
  EXPECT_EQ(upkeep.last().at, Lsn{100});
  EXPECT_EQ(upkeep.last().rows, 25u);
  EXPECT_EQ(upkeep.last().pieces, 3u);
  EXPECT_FALSE(upkeep.due());
}

TEST(Upkeep, what_recovery_had_to_replay_counts) {
  Rows machine{.changed = 1};
  Upkeep upkeep(100, limits);
  EXPECT_EQ(pieces(upkeep, machine, Lsn{100}, Lsn{100}), std::vector<std::size_t>{1});
}

TEST(Upkeep, commits_without_rows_move_the_mark_too) {
  Rows machine;
  Upkeep upkeep(100, limits);
  EXPECT_EQ(pieces(upkeep, machine, Lsn{7}, Lsn{7}), std::vector<std::size_t>{0});
}

TEST(Upkeep, large_rows_make_small_pieces) {
  Rows machine{.changed = 12};
  Upkeep upkeep(100, {.commits = 100, .piece_rows = 10, .piece_bytes = 40});
  EXPECT_EQ(pieces(upkeep, machine, Lsn{1}, Lsn{1}), (std::vector<std::size_t>{4, 4, 4}));
}

TEST(Upkeep, one_that_is_asked_for_while_another_is_taken_follows_it) {
  Rows machine{.changed = 15};
  Upkeep upkeep(100, limits);
  EXPECT_EQ(upkeep.next(machine, Lsn{1})->rows.size(), 10u);
  machine.changed = 3;
  upkeep.ask();
  EXPECT_EQ(*upkeep.next(machine, Lsn{2})->at, Lsn{1});
  EXPECT_EQ(machine.begun, 1);
  EXPECT_TRUE(upkeep.asked());
  EXPECT_EQ(pieces(upkeep, machine, Lsn{3}, Lsn{3}), std::vector<std::size_t>{3});
  EXPECT_FALSE(upkeep.due());
}

}  // namespace
}  // namespace lockstep
