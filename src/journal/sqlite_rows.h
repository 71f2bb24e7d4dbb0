#pragma once

// A row of the journal's table of records: one commit as text, or the commits of one sync, joined and packed. SQLite
// takes more than two microseconds for a row of its own, and a page of its log costs more than packing what is in it.
// docs/formats/journal.md has the bytes; docs/decisions/0072-commits-of-one-sync-share-a-row.md has why.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "journal/store.h"

namespace lockstep {

/// How many of the records, one at least, are the next row.
std::size_t row_length(std::span<const Record> records);

/// As it stands in the file; `end` is the newest record in it.
struct RecordRow {
  Lsn end;
  std::string body;
  bool packed = false;
  std::uint32_t crc = 0;
  bool more = false;  // the next row is of the same batch: a journal cannot end here
};

/// Its checksum, which depends on the row before it.
std::uint32_t checksum_of(Lsn end, bool more, std::string_view body, std::uint32_t previous);

/// Makes rows, in memory that it uses again.
class RowPacker {
 public:
  struct Body {
    std::string_view bytes;  // until the next one
    bool packed;
  };
  Body pack(std::span<const Record> records);

 private:
  std::string joined_;
  std::string packed_;
};

/// The records of a row. nullopt: these bytes were never written by pack().
std::optional<std::vector<Record>> unpack(RecordRow&& row);

}  // namespace lockstep
