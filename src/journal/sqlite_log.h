#pragma once

// How the log of the journal's database (SQLite's WAL) reaches the disk: what one commit writes is gathered and written
// at once, whole blocks of it, past the page cache. SQLite by itself writes a header and a page for each frame into the
// page cache, from where the sync takes them again; for a commit of one page that costs a sixth of it
// (docs/decisions/0073-the-log-is-written-in-blocks.md). What is in the file is the same: the format is SQLite's.

#include <memory>

struct sqlite3_vfs;

namespace lockstep {

/// A file system for SQLite that is another one but for the log. It must live longer than the connections that are
/// opened with it. Where the file system knows no writing past the page cache, or one fails, what was gathered goes
/// through it.
class LogFileSystem {
 public:
  /// below: a registered one; absent: the machine's. direct: past the page cache; only the machine's own can.
  LogFileSystem(const char* below, bool direct);
  ~LogFileSystem();
  LogFileSystem(const LogFileSystem&) = delete;
  LogFileSystem& operator=(const LogFileSystem&) = delete;

  /// For sqlite3_open_v2; none when there is no such file system below.
  const char* name() const;

 private:
  struct Vfs;
  std::unique_ptr<Vfs> vfs_;
};

}  // namespace lockstep
