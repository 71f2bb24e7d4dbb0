#pragma once

// Commands to workers that are answered with change_confirmed: throttled for each link by device::CommandLimits. One
// that finds no room waits; a newer one of the same kind takes its place.

#include <string>

#include "events/json_write.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// kind: what a newer command replaces, "config", "routing", "memory_policy"; op_id is "<kind>:<revision>".
void command_text(Turn& turn, const WorkerRecord& worker, FrameType type, const std::string& kind,
                  std::uint64_t revision, RawJson body);

template <class Body>
void command(Turn& turn, const WorkerRecord& worker, FrameType type, const std::string& kind, std::uint64_t revision,
             const Body& body) {
  command_text(turn, worker, type, kind, revision, RawJson{json::to_text(body)});
}

/// The revision in an op_id of `kind`; 0 when it is of another kind.
std::uint64_t revision_of(const std::string& op_id, const std::string& kind);

/// A command was answered: there is room for the next.
void command_answered(Turn& turn, const WorkerRecord& worker, const std::string& op_id);
/// "command:<worker>" fired: tokens came back.
void command_room(Turn& turn, const WorkerRecord& worker);

}  // namespace lockstep
