#include "propagation/packed_frame.h"

namespace lockstep {

void pack_envelope(std::string& out, const Envelope& envelope) {
  packed::write(out, envelope.id);
  packed::write(out, envelope.source.side);
  packed::write(out, envelope.source.worker_id);
  packed::write(out, envelope.time);
  packed::write(out, envelope.op_id);
  packed::write(out, envelope.attempt);
  packed::write(out, envelope.correlation);
}

Status unpack_envelope(const FrameHeader& header, std::string_view body, Envelope& out, std::string_view& message) {
  packed::Reader in(body);
  const bool read = packed::read(in, out.id) && packed::read(in, out.source.side) &&
                    packed::read(in, out.source.worker_id) && packed::read(in, out.time) &&
                    packed::read(in, out.op_id) && packed::read(in, out.attempt) && packed::read(in, out.correlation);
  if (!read) return in.error();
  out.type.assign(boost::describe::enum_to_string(static_cast<FrameType>(header.type), "?"));  // no memory of its own
  out.source.incarnation = header.incarnation;
  out.epoch = header.epoch;
  out.sequence = header.sequence;
  out.urgency = header.urgency;
  message = in.rest();
  return {};
}

void append_frame(std::string& out, FrameHeader header, std::string_view body) {
  header.body_length = static_cast<std::uint32_t>(body.size());
  const auto bytes = encode_header(header);
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  out.append(body);
}

}  // namespace lockstep
