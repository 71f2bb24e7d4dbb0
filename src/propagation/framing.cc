#include "propagation/framing.h"

#include "base/check.h"
#include "base/text.h"
#include "events/json_read.h"

namespace lockstep {

FrameHeader header_of(FrameType type, const Envelope& envelope, std::size_t descriptors) {
  return {.type = static_cast<std::uint16_t>(type),
          .urgency = envelope.urgency,
          .descriptors = static_cast<std::uint8_t>(descriptors),
          .epoch = envelope.epoch,
          .incarnation = envelope.source.incarnation,
          .sequence = envelope.sequence};
}

Frame to_frame(FrameType type, Envelope envelope, std::size_t descriptors) {
  envelope.type = json::enum_name(type);
  Frame frame;
  frame.body = json::to_text(envelope);
  frame.header = header_of(type, envelope, descriptors);
  frame.header.body_length = static_cast<std::uint32_t>(frame.body.size());
  return frame;
}

void number(Frame& frame, Urgency lane, std::uint64_t sequence) {
  // The keys ahead of these hold plain names and numbers, and a quote inside a text is escaped: the first match is the
  // envelope's own key. The body is not encoded again: it may be long, and most of what waits never changes lane.
  constexpr std::string_view unnumbered = "\"sequence\":0,";
  LOCKSTEP_CHECK(frame.header.sequence == 0);
  if (frame.header.packed) {  // only the header says lane and number
    frame.header.urgency = lane;
    frame.header.sequence = sequence;
    return;
  }
  const std::size_t at = frame.body.find(unnumbered);
  LOCKSTEP_CHECK(at != std::string::npos);
  if (lane != frame.header.urgency) {
    const std::string was = cat("\"urgency\":\"", json::enum_name(frame.header.urgency), "\"");
    const std::size_t urgency = frame.body.find(was, at);
    LOCKSTEP_CHECK(urgency != std::string::npos);
    frame.body.replace(urgency, was.size(), cat("\"urgency\":\"", json::enum_name(lane), "\""));
  }
  frame.body.replace(at, unnumbered.size(), cat("\"sequence\":", sequence, ","));
  frame.header.body_length = static_cast<std::uint32_t>(frame.body.size());
  frame.header.urgency = lane;
  frame.header.sequence = sequence;
}

Result<Envelope> from_frame(const Frame& frame) {
  if (frame.header.packed) {
    Envelope envelope;
    std::string_view message;
    LOCKSTEP_TRY_STATUS(unpack_envelope(frame.header, frame.body, envelope, message));
    envelope.body.text.assign(message);
    envelope.form = Form::packed;
    return envelope;
  }
  Envelope envelope = LOCKSTEP_TRY(json::from_text<Envelope>(frame.body));
  const FrameHeader& header = frame.header;
  const auto differs = [](std::string_view pointer, const auto& said, const auto& header_said) {
    return fail(ErrorCode::invalid_argument, cat("the body says ", said, ", the header ", header_said),
                std::string(pointer));
  };
  const std::string type = json::enum_name(static_cast<FrameType>(header.type));
  if (envelope.type != type) return differs("/type", shortened(envelope.type), cat(type, " (", header.type, ")"));
  if (envelope.source.incarnation != header.incarnation) {
    return differs("/source/incarnation", envelope.source.incarnation.value, header.incarnation.value);
  }
  if (envelope.epoch != header.epoch) return differs("/epoch", envelope.epoch.value, header.epoch.value);
  if (envelope.sequence != header.sequence) return differs("/sequence", envelope.sequence, header.sequence);
  if (envelope.urgency != header.urgency) {
    return differs("/urgency", json::enum_name(envelope.urgency), json::enum_name(header.urgency));
  }
  return envelope;
}

}  // namespace lockstep
