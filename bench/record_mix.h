#pragma once

// Commits as the machine writes them for one image after another: accepted, dispatched, generated, stored, and two small
// ones of what happens beside it. Rows are the structs of the state, so what is measured is what a real journal holds:
// about 1 KiB a record.

#include <cstdint>

#include "operations/tables.h"
#include "state/commit.h"

namespace lockstep::bench {

class RecordMix {
 public:
  /// The next commit; its rev is the next one.
  Commit next();

 private:
  Tables names_;  // for the names of the tables; no row is ever in them
  std::uint64_t rev_ = 0;
};

}  // namespace lockstep::bench
