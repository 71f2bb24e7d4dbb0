#pragma once

// The state machines as diagrams, made from the tables that the program runs by: `lockstep message machines` and
// docs/state_machines.md.

#include <string>

namespace lockstep::cli {

/// Markdown with one Mermaid diagram and one table for each machine.
std::string machines_document();

}  // namespace lockstep::cli
