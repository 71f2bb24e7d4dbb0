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
};

class Store {
 public:
  virtual ~Store() = default;

  /// Everything that was made durable. data_loss when a checksum fails or a record is missing: the start must stop.
  virtual Result<Recovered> recover() = 0;

  /// Returns when all records are on disk, as one unit. An error means "unknown": the caller must stop the process,
  /// never retry (a failed sync may have dropped the pages it failed on).
  virtual Status append(std::span<const Record> records) = 0;

  /// Writes the changed rows and forgets the records up to `at`, as one unit.
  virtual Status snapshot(Lsn at, std::span<const SnapshotRow> changed) = 0;
};

}  // namespace lockstep
