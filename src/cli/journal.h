#pragma once

// `lockstep journal verify|dump|snapshot|backup`. The first two read the journal of a stopped server, or a copy of one,
// and change nothing in it; the others ask a running server, which alone may open its own.

#include <memory>
#include <optional>
#include <string>

#include "journal/store.h"

namespace CLI {
class App;
}

namespace lockstep::cli {

/// Lines for people, or one JSON object a line for programs: the rows and the commits, the past among them, whose rev
/// is in the range. data_loss when a record is no commit.
Result<std::string> dump_text(const Recovered& recovered, Rev from, Rev to, bool json);

class Journal {
 public:
  /// data_dir: where a server keeps its journal unless it is told otherwise
  Journal(CLI::App& app, std::string data_dir);
  ~Journal();
  /// The exit status when one of its commands was chosen.
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::cli
