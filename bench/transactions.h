#pragma once

// `lockstep bench transactions`: durable transactions over three participants, and the journal at its limits: how long
// a start reads a long one, and how long a snapshot keeps the loop and a commit.

#include <array>
#include <string_view>

#include "base/result.h"
#include "bench/report.h"

namespace lockstep::bench {

inline constexpr std::array<std::string_view, 4> transactions_rows{"commit_1", "commit_64", "recovery_1m",
                                                                   "snapshot_pause"};

struct TransactionsOptions {
  int commits = 20'000;     // in each row of commits; a hundredth of them where one follows the other
  int records = 1'000'000;  // of the journal that is recovered
  int rows = 100'000;       // changed ones of the snapshot
  std::string_view only;    // empty: all rows
  std::string_view folder;  // on the disk to be measured; empty: the system's for temporary files
  std::string_view peers;   // folder of the programs of peers; empty: wherever they are installed
};
Result<Report> transactions(const TransactionsOptions& options);

}  // namespace lockstep::bench
