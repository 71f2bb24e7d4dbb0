#include "orchestrator/on_device.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/on_tuning.h"
#include "orchestrator/turn.h"

namespace lockstep {

void on_set(Turn& turn, const in::Set& input) {
  if (turn.live.stopping) {
    return reply_error(turn, input.reply, fail(ErrorCode::unavailable, "the server is stopping"));
  }
  if (set_device(turn, input) || set_memory(turn, input) || set_tuning(turn, input)) return;
  reply_error(turn, input.reply, fail(ErrorCode::not_found, cat("nothing can be set at ", shortened(input.path))));
}

}  // namespace lockstep
