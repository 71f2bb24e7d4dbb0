#pragma once

// Where commits become durable. One record per commit; a snapshot replaces the records up to a position by rows.
// The SQLite engine (journal/sqlite_store.h) and the simulator's disk implement the same interface.

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

  /// Writes the changed rows as one unit; records up to `at` are the past then, of which a store may forget any.
  virtual Status snapshot(Lsn at, std::span<const SnapshotRow> changed) = 0;
};

}  // namespace lockstep
