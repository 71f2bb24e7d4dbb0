#pragma once

// Where commits become durable. One record per commit; a snapshot replaces the records up to a position by rows.
// The SQLite engine (journal/sqlite_store.h) implements it; the simulator's disk keeps the same contract.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace lockstep {

struct Record {
  Lsn lsn;
  std::string body;
};

struct SnapshotRow {
  std::string table;
  std::string key;
  std::optional<std::string> value;  // absent: the row is gone
  Rev mod_rev;
};

/// One piece of an incremental snapshot. Its rows are as they are when the piece is made, and everything they come from
/// is appended before the piece is written: then a crash between two pieces leaves rows that are older than the newest
/// record or just as new, and replay from the old mark gives each its last value.
///
/// at   with the last piece: every row that changed up to here is written, the records up to here are the past. It is
///      where an append ended.
struct SnapshotPiece {
  std::vector<SnapshotRow> rows;
  std::optional<Lsn> at;
};

struct Recovered {
  Lsn snapshot_at;                // records up to here are inside `rows`
  std::vector<SnapshotRow> rows;  // with values
  std::vector<Record> records;    // contiguous from snapshot_at + 1
  std::vector<Record> past;       // contiguous up to snapshot_at: for who wants to read on, not for the state
};

class Store {
 public:
  virtual ~Store() = default;

  /// Everything that was made durable. data_loss when a checksum fails or a record is missing: the start must stop.
  virtual Result<Recovered> recover() = 0;

  /// Returns when all records are on disk, as one unit. An error means "unknown": the caller must stop the process,
  /// never retry (a failed sync may have dropped the pages it failed on).
  virtual Status append(std::span<const Record> records) = 0;

  /// Writes the rows as one unit, and moves the mark with the last of them. An error is that of append().
  virtual Status snapshot(const SnapshotPiece& piece) = 0;

  /// Is there old stuff that tidy() would clear?
  virtual bool untidy() const = 0;
  /// Clears some of it, for a few milliseconds at most. An error is that of append().
  virtual Status tidy() = 0;
};

}  // namespace lockstep
