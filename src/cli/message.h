#pragma once

// `lockstep message check` and `lockstep message schema`: the specification's documents, without a server.

#include <memory>
#include <optional>
#include <string>

#include "cli/exit_code.h"

namespace CLI {
class App;
}

namespace lockstep::cli {

struct CheckOutput {
  std::string out;  // for stdout: the canonical form and a newline, or nothing
  std::string err;  // for stderr: one problem object (RFC 9457), a line about keys that were dropped, or nothing
  ExitCode code = ExitCode::done;
};

/// type   a name of events/message_types.h; empty: as the document says itself
/// ends with `done`, or with `usage` when the document is refused
CheckOutput check_message(const std::string& text, const std::string& type);
/// JSON Schema of one type, or of all when `type` is empty.
CheckOutput message_schema(const std::string& type);

class Message {
 public:
  explicit Message(CLI::App& app);
  ~Message();
  /// The exit status when one of its sub-commands was chosen.
  std::optional<int> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::cli
