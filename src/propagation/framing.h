#pragma once

// How a message becomes a frame and a frame a message (§2, docs/formats/wire.md).

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "env/frame.h"
#include "events/envelope.h"
#include "events/link_messages.h"

namespace lockstep {

/// How a frame may move while it waits (propagation/lanes.h).
///
/// newer  the key under which a newer sample replaces this one; empty: never dropped
/// order  frames with the same key keep their order; empty: it has no predecessor
struct Passage {
  std::string newer;
  std::string order;
};

/// The envelope's type and sequence and the header's follow from the arguments. A frame that will wait in lanes has
/// sequence 0: it gets its number when it leaves.
Frame to_frame(FrameType type, Envelope envelope, std::size_t descriptors);

/// Writes lane and number into header and body of a frame that was made with sequence 0.
void number(Frame& frame, Urgency lane, std::uint64_t sequence);

/// invalid_argument with the pointer of the field for a body that is no envelope, or one that contradicts its header.
Result<Envelope> from_frame(const Frame& frame);

}  // namespace lockstep
