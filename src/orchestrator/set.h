#pragma once

// What people set below /api/v1, in their words: PUT replaces, PATCH changes what is named.

#include <string>

#include "events/json_read.h"
#include "orchestrator/turn.h"

namespace lockstep {

/// The body of a setting. An unknown key is refused: a typing error must not look applied.
template <class Body>
Result<Body> read_set(const in::Set& input) {
  json::ReadNotes notes;
  Body body = LOCKSTEP_TRY(json::from_text<Body>(input.body, &notes));
  if (notes.unknown_keys == 0) return body;
  return fail(ErrorCode::invalid_argument,
              cat("the key ", shortened(notes.first_unknown), " is unknown; nothing was changed"), notes.first_unknown);
}

}  // namespace lockstep
