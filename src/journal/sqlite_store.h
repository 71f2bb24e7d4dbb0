#pragma once

// The journal on SQLite: WAL, synchronous=FULL, one exclusive connection, one row per commit with a chained CRC-32C.
// docs/formats/journal.md has the tables. One thread at a time: the loop or its disk thread, never both.

#include <memory>
#include <string>

#include "journal/store.h"

namespace lockstep {

class SqliteStore final : public Store {
 public:
  /// Opens or creates `path`. unavailable when another process holds it; data_loss when it is not a journal of this
  /// format version; the sentence names the file. `vfs` is the file system as SQLite knows it; absent: the machine's.
  static Result<std::unique_ptr<SqliteStore>> open(const std::string& path, const char* vfs = nullptr);
  ~SqliteStore() override;

  Result<Recovered> recover() override;
  Status append(std::span<const Record> records) override;
  Status snapshot(const SnapshotPiece& piece) override;
  bool untidy() const override;
  Status tidy() override;

  static constexpr int format_version = 1;
  /// How many records behind the snapshot are kept, so that event streams can go on after a restart.
  static constexpr std::uint64_t past_records_max = 10'000;

 private:
  struct Connection;
  explicit SqliteStore(std::unique_ptr<Connection> connection);
  std::unique_ptr<Connection> connection_;
};

}  // namespace lockstep
