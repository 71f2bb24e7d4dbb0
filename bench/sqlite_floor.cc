#include "bench/sqlite_floor.h"

#include <sqlite3.h>

#include "base/text.h"

namespace lockstep::bench {

Result<std::uint64_t> read_plainly(const std::string& file) {
  sqlite3* db = nullptr;
  std::uint64_t bytes = 0;
  bool whole = sqlite3_open_v2(file.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr) == SQLITE_OK;
  for (const char* sql : {"SELECT value FROM snapshot_row", "SELECT body FROM record ORDER BY lsn"}) {
    sqlite3_stmt* rows = nullptr;
    whole = whole && sqlite3_prepare_v2(db, sql, -1, &rows, nullptr) == SQLITE_OK;
    int step = SQLITE_DONE;
    while (whole && (step = sqlite3_step(rows)) == SQLITE_ROW) {
      if (sqlite3_column_text(rows, 0) != nullptr) {
        bytes += static_cast<std::uint64_t>(sqlite3_column_bytes(rows, 0));
      }
    }
    whole = whole && step == SQLITE_DONE;
    sqlite3_finalize(rows);
  }
  sqlite3_close_v2(db);
  if (!whole) return fail(ErrorCode::data_loss, cat("cannot read ", file));
  return bytes;
}

}  // namespace lockstep::bench
