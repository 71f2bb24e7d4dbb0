#pragma once

// A frame whose body is packed (events/packed.h), for links whose two ends announced the same schema digest. The header
// says type, urgency, epoch, incarnation and sequence; the body says the rest of the envelope, then the message. So the
// bytes behind the header are the same on every link, and an event for many is packed once.

#include <string>
#include <string_view>

#include "env/frame.h"
#include "events/envelope.h"
#include "events/link_messages.h"
#include "events/packed.h"

namespace lockstep {

/// Appends what of the envelope stands behind the header. A message follows: packed, or as its bytes came.
void pack_envelope(std::string& out, const Envelope& envelope);

/// The header's part of the envelope and the body's, into memory that is used again. `message` gets the bytes of the
/// message, which stand where `body` stands. invalid_argument with the pointer of the field.
Status unpack_envelope(const FrameHeader& header, std::string_view body, Envelope& out, std::string_view& message);

/// Appends a whole frame. The header's body_length follows from the body.
void append_frame(std::string& out, FrameHeader header, std::string_view body);

}  // namespace lockstep
