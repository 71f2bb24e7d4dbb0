#pragma once

// Step 2 of the path (design §2): may this worker tell of this? The kind of fact is asked of the ownership table; the
// thing it is about (a device, a run, a transaction, a model being loaded) must be the worker's own. A refusal changes
// nothing, is counted for (worker, fact), and is shown; it does not end the worker, which is wrong but not broken.

#include "events/envelope.h"
#include "orchestrator/turn.h"
#include "ownership/table.h"

namespace lockstep {

/// not_owner with the pointer of the name; invalid_argument for a type that no protocol knows. A body that cannot be
/// read passes: its own reader says better what is wrong with it. A thing that is nobody's passes: it is late. §1
Status owner_gate(const Turn& turn, const WorkerRecord& worker, FrameType type, const Envelope& envelope);

/// not_owner or not_yet: counted in Counters, logged and published as "write_refused" the 1st, 2nd, 4th, 8th ... time.
void refuse_write(Turn& turn, const WorkerRecord& worker, FrameType type, const Error& why);

}  // namespace lockstep
