#pragma once

// Requests with an Idempotency-Key (consistency.md §3.5): the first one is carried out, and its answer kept under the
// key in the same commit as what it changed; the next ones get that answer.

#include "orchestrator/turn.h"

namespace lockstep {

/// True when the key is known, and the request answered: with what was answered before, 422 when it is another request,
/// or 409 and where to look while the first one still runs. So is a new key where no more can be kept (429).
bool answered_by_key(Turn& turn, const IdempotencyKey& key);
/// After the command was carried out: keeps its answer, or that one is due and where to look meanwhile.
void keep_answer(Turn& turn, const IdempotencyKey& key, std::optional<std::string> place);
/// Where somebody sees what becomes of a command that is not a request and is not answered at once.
std::optional<std::string> place_of(const decltype(Input::what)& what);
/// Keeps what this turn answered to commands of earlier ones.
void keep_late_answers(Turn& turn);
/// Nobody will hear of it any more: the key of a command whose end no request tells can be used again.
void forget_key(Turn& turn, ReplyId reply);
/// What no process carries out any more can be asked for again.
void forget_interrupted(Turn& turn);

}  // namespace lockstep
