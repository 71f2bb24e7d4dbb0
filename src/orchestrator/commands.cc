#include "orchestrator/commands.h"

#include <charconv>

#include "base/text.h"
#include "domains/device/throttle.h"

namespace lockstep {

namespace {

constexpr device::CommandLimits limits;

/// Sends what waits, as far as there is room; arms a timer for the rest when only tokens are missing.
void send_waiting(Turn& turn, const WorkerRecord& worker, CommandLane& lane) {
  lane.tokens = lane.used ? device::refilled(lane.tokens, turn.now - lane.refilled, limits) : limits.burst;
  lane.used = true;
  lane.refilled = turn.now;
  while (!lane.waiting.empty() && device::may_send(lane.out.size(), lane.tokens, limits)) {
    const auto next = lane.waiting.begin();
    const auto [type, waiting] = next->second;
    lane.waiting.erase(next);
    lane.tokens -= 1;
    lane.out.emplace(waiting.operation.op_id, type);
    ++turn.live.counters.commands_sent;
    send(turn, worker, type, waiting.body, waiting.operation);
  }
  if (lane.waiting.empty() || lane.out.size() >= limits.unanswered_max) return;
  const auto wait = static_cast<Nanos>((1 - lane.tokens) / limits.per_second * 1e9) + 1;
  turn.effect(out::ArmTimer{cat("command:", worker.worker_id.str()), turn.now + wait});
}

}  // namespace

void command_text(Turn& turn, const WorkerRecord& worker, FrameType type, const std::string& kind,
                  std::uint64_t revision, RawJson body) {
  CommandLane& lane = turn.live.commands[worker.worker_id];
  lane.waiting.insert_or_assign(kind,
                                std::pair(type, Command{Operation{cat(kind, ":", revision), 0, {}}, std::move(body)}));
  send_waiting(turn, worker, lane);
  if (lane.waiting.contains(kind)) ++turn.live.counters.commands_throttled;
}

std::uint64_t revision_of(const std::string& op_id, const std::string& kind) {
  const std::string prefix = cat(kind, ":");
  std::uint64_t revision = 0;
  if (!op_id.starts_with(prefix)) return 0;
  std::from_chars(op_id.data() + prefix.size(), op_id.data() + op_id.size(), revision);
  return revision;
}

void command_answered(Turn& turn, const WorkerRecord& worker, const std::string& op_id) {
  CommandLane& lane = turn.live.commands[worker.worker_id];
  if (lane.out.erase(op_id) > 0) send_waiting(turn, worker, lane);
}

void command_room(Turn& turn, const WorkerRecord& worker) {
  send_waiting(turn, worker, turn.live.commands[worker.worker_id]);
}

}  // namespace lockstep
