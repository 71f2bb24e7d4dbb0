#pragma once

// What the journal's routes take and say. The journal is no fact of the state: these orders change nothing that a
// worker or a client could see, and go past the core.

#include <cstdint>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"

namespace lockstep::http {

/// The answer of POST /api/v1/journal/snapshot.
struct SnapshotView {
  Rev rev;  // it stands at
  std::uint64_t rows = 0;
  std::uint64_t pieces = 0;
  double milliseconds = 0;
};
BOOST_DESCRIBE_STRUCT(SnapshotView, (), (rev, rows, pieces, milliseconds))

/// The body of POST /api/v1/journal/backup. file: a path from the root, of a file that is not there yet
struct BackupBody {
  std::string file;
};
BOOST_DESCRIBE_STRUCT(BackupBody, (), (file))

struct BackupView {
  std::string file;
  Rev rev;  // of the newest record in it
  std::uint64_t bytes = 0;
  double milliseconds = 0;
};
BOOST_DESCRIBE_STRUCT(BackupView, (), (file, rev, bytes, milliseconds))

}  // namespace lockstep::http
