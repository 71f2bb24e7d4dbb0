#pragma once

// What ties a journal together: each record to the one before it, the rows of a snapshot to each other, and both to the
// marks. SQLite's pages carry no checksum of their own; where a disk says "synced" and is not, old and new ones may lie
// side by side. docs/formats/journal.md has the fields, docs/decisions/0071-rows-of-a-snapshot-are-one-set.md the
// proof.

#include <cstdint>
#include <string_view>

#include "base/ids.h"

namespace lockstep {

std::uint32_t row_crc(std::string_view table, std::string_view key, std::string_view value, std::uint64_t rev);

/// Which rows there are, by their checksums and in no order, so that one comes or goes without a look at the others.
struct RowSet {
  std::uint64_t count = 0;
  std::uint64_t sum = 0;  // modulo 2^63: an INTEGER of SQLite's that is not negative

  void add(std::uint32_t crc);
  void remove(std::uint32_t crc);
  bool operator==(const RowSet&) const = default;
};

/// What a snapshot's last piece left. Each piece writes all of it, in one transaction with its rows.
struct Marks {
  Lsn snapshot_at;                 // records up to here are inside the rows
  std::uint32_t snapshot_crc = 0;  // of that record
  Lsn rows_at;                     // the newest record when a row was written last: no state of these rows is older
  std::uint32_t rows_crc = 0;      // of that record
  RowSet rows;

  std::uint32_t crc() const;
};

}  // namespace lockstep
