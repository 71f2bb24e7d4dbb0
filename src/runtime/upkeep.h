#pragma once

// When the journal gets its snapshots, and in which pieces. A snapshot of many rows would keep the disk from commits
// for as long as it takes, so it is written in pieces, each between two batches: no commit waits for more than one, and
// the loop goes on beside them.
//
// The mark is where the snapshot began. Rows that change while it is written may be in it with their new values
// already; the records after the mark change them again, to the same. Until the mark moves, the old one and all records
// after it are there, so a crash between any two pieces costs nothing (journal/store.h: SnapshotPiece).

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/ids.h"
#include "journal/store.h"

namespace lockstep {

/// A piece of so many rows is one synced write of a few milliseconds at most; bytes bound it where rows are large.
struct UpkeepLimits {
  std::uint64_t commits = 2000;  // from the begin of one snapshot to the next
  std::size_t piece_rows = 200;
  std::size_t piece_bytes = 256u << 10;
};

/// What the last snapshot was.
struct SnapshotDone {
  Lsn at;
  std::uint64_t rows = 0;
  std::uint64_t pieces = 0;
};

/// A Machine has begin_snapshot(), take_snapshot_rows(rows_max, bytes_max) and snapshot_rows_left().
class Upkeep {
 public:
  /// replayed: the records that recovery found after the mark
  explicit Upkeep(std::uint64_t replayed = 0, UpkeepLimits limits = {}) : limits_(limits), commits_(replayed) {}

  void committed(std::uint64_t commits) { commits_ += commits; }
  /// A snapshot that begins now, or when the one that is being taken is complete.
  void ask() { asked_ = true; }
  bool due() const { return taking_ || asked_ || commits_ >= limits_.commits; }
  bool asked() const { return asked_; }

  /// The piece that the disk writes after everything up to `applied`, which must be with the disk already or go with
  /// this piece, ahead of it. Nothing when no snapshot is due.
  template <class Machine>
  std::optional<SnapshotPiece> next(Machine& machine, Lsn applied) {
    if (!due()) return std::nullopt;
    if (!taking_) {
      taking_ = SnapshotDone{applied};
      commits_ = 0;
      asked_ = false;
      machine.begin_snapshot();
    }
    SnapshotPiece piece{machine.take_snapshot_rows(limits_.piece_rows, limits_.piece_bytes), std::nullopt};
    taking_->rows += piece.rows.size();
    ++taking_->pieces;
    if (machine.snapshot_rows_left() > 0) return piece;
    piece.at = taking_->at;
    last_ = *std::exchange(taking_, std::nullopt);
    return piece;
  }

  /// The one whose last piece was given out.
  const SnapshotDone& last() const { return last_; }

 private:
  UpkeepLimits limits_;
  std::uint64_t commits_ = 0;  // since the last one began
  bool asked_ = false;
  std::optional<SnapshotDone> taking_;
  SnapshotDone last_;
};

}  // namespace lockstep
