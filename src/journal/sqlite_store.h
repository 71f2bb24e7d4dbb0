#pragma once

// The journal on SQLite: WAL, synchronous=FULL, one exclusive connection, one row per sync with a chained CRC-32C,
// and the snapshot's rows tied together by marks. docs/formats/journal.md has the tables. One thread at a time: the
// loop or its disk thread, never both.

#include <memory>
#include <string>

#include "journal/store.h"

namespace lockstep {

class SqliteStore final : public Store {
 public:
  /// Opens or creates `path`. unavailable when another process holds it; data_loss when it is not a journal of a
  /// format version that is read here; the sentence names the file. `vfs` is the file system as SQLite knows it;
  /// absent: the machine's. A journal that is not new is recovered before anything is written to it.
  static Result<std::unique_ptr<SqliteStore>> open(const std::string& path, const char* vfs = nullptr);
  /// For who only looks: recover() and backup(). Nothing in the file or its log is changed, nor at the end. Besides the
  /// errors of open(): not_found when there is no such file.
  static Result<std::unique_ptr<SqliteStore>> open_to_read(const std::string& path);
  ~SqliteStore() override;

  Result<Recovered> recover() override;
  Status append(std::span<const Record> records) override;
  Status snapshot(const SnapshotPiece& piece) override;
  bool untidy() const override;
  Status tidy() override;

  /// Writes a copy of the whole journal to `file`, synced, and returns its size in bytes. It is there whole or not at
  /// all. already_exists names a file that is there; unavailable when it cannot be written, which harms no journal.
  Result<std::uint64_t> backup(const std::string& file) const;

  static constexpr std::uint64_t format_version = 3;
  /// A journal of an older version becomes one of format_version with the first write; until then it is as it was.
  static constexpr std::uint64_t oldest_version = 1;
  /// How many records behind the snapshot are kept, so that event streams can go on after a restart.
  static constexpr std::uint64_t past_records_max = 10'000;

 private:
  struct Connection;
  explicit SqliteStore(std::unique_ptr<Connection> connection);
  std::unique_ptr<Connection> connection_;
};

}  // namespace lockstep
