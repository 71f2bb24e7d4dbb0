#pragma once

// The simulated disk: what a crash leaves of the journal, and the outputs by content.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "journal/store.h"

namespace lockstep::sim {

/// The durable side of the journal: what a crash leaves.
struct Disk {
  std::vector<SnapshotRow> rows;
  Lsn snapshot_at;
  std::vector<Record> records;
  std::map<std::string, bool> outputs;  // stored by content

  Recovered recover() const { return {snapshot_at, rows, records}; }
  void append(const std::vector<Record>& batch) {
    for (const Record& record : batch) {
      const Lsn last = records.empty() ? snapshot_at : records.back().lsn;
      LOCKSTEP_CHECK(record.lsn == last.next());
      records.push_back(record);
    }
  }
  void snapshot(Lsn at, const std::vector<SnapshotRow>& changed) {
    std::map<std::pair<std::string, std::string>, SnapshotRow> merged;
    for (const SnapshotRow& row : rows) merged[{row.table, row.key}] = row;
    for (const SnapshotRow& row : changed) {
      if (row.value) {
        merged[{row.table, row.key}] = row;
      } else {
        merged.erase({row.table, row.key});
      }
    }
    rows.clear();
    for (auto& [key, row] : merged) rows.push_back(row);
    snapshot_at = at;
    std::erase_if(records, [&](const Record& record) { return record.lsn <= at; });
  }
};

}  // namespace lockstep::sim
