#pragma once

// How a message becomes a frame and a frame a message (§2, docs/formats/wire.md).

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "base/result.h"
#include "base/text.h"
#include "env/frame.h"
#include "events/envelope.h"
#include "events/json_read.h"
#include "events/json_write.h"
#include "events/link_messages.h"
#include "events/packed.h"
#include "events/packed_messages.h"
#include "propagation/packed_frame.h"

namespace lockstep {

/// How a frame may move while it waits (propagation/lanes.h).
///
/// newer  the key under which a newer sample replaces this one; empty: never dropped
/// order  frames with the same key keep their order; empty: it has no predecessor
struct Passage {
  std::string newer;
  std::string order;
};

/// What the header says of an envelope; without the body's length.
FrameHeader header_of(FrameType type, const Envelope& envelope, std::size_t descriptors);

/// The envelope's type and sequence and the header's follow from the arguments. A frame that will wait in lanes has
/// sequence 0: it gets its number when it leaves. The message is the envelope's, as JSON.
Frame to_frame(FrameType type, Envelope envelope, std::size_t descriptors);

/// The same with a message of its own, in this form; in JSON where it may not be packed.
template <class Body>
Frame to_frame(FrameType type, Envelope envelope, const Body& body, std::size_t descriptors, Form form) {
  if constexpr (Packable<Body>) {
    if (form == Form::packed) {
      Frame frame;
      frame.header = header_of(type, envelope, descriptors);
      frame.header.packed = true;
      pack_envelope(frame.body, envelope);
      packed::write(frame.body, body);
      frame.header.body_length = static_cast<std::uint32_t>(frame.body.size());
      return frame;
    }
  }
  envelope.body = RawJson{json::to_text(body)};
  return to_frame(type, std::move(envelope), descriptors);
}

/// Writes lane and number into header and body of a frame that was made with sequence 0.
void number(Frame& frame, Urgency lane, std::uint64_t sequence);

/// invalid_argument with the pointer of the field for a body that is no envelope, or one that contradicts its header.
Result<Envelope> from_frame(const Frame& frame);

/// The message of an envelope, whatever form it came in; invalid_argument with the pointer of the field.
template <class Body>
Result<Body> read_message(const Envelope& envelope) {
  if (envelope.form == Form::json) return json::from_text<Body>(envelope.body.text);
  if constexpr (Packable<Body>) {
    Body body;
    LOCKSTEP_TRY_STATUS(packed::read_bytes(envelope.body.text, body));
    return body;
  } else {
    return fail(ErrorCode::invalid_argument, cat(shortened(envelope.type), " must not cross packed"), "/type");
  }
}

}  // namespace lockstep
