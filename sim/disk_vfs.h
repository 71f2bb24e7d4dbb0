#pragma once

// SQLite on the simulated disk: a file system of SQLite's (sqlite3_vfs) whose bytes, errors, time and chance are the
// disk's. While one lives, SQLite's own chance comes from it too, so that a seed gives the same bytes.

#include <memory>
#include <string>

#include "base/units.h"
#include "sim/disk.h"

namespace lockstep::sim {

class DiskVfs {
 public:
  /// The disk and the clock must outlive it.
  DiskVfs(Disk& disk, const Nanos& now);
  ~DiskVfs();
  DiskVfs(const DiskVfs&) = delete;
  DiskVfs& operator=(const DiskVfs&) = delete;

  /// What SqliteStore::open takes.
  const std::string& name() const;

 private:
  struct Registered;
  std::unique_ptr<Registered> registered_;
};

}  // namespace lockstep::sim
