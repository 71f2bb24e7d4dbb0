#include "bench/relay.h"

#include "base/text.h"
#include "ownership/table.h"
#include "propagation/framing.h"
#include "propagation/packed_frame.h"

namespace lockstep::bench {

namespace {

const WorkerId teller_name("worker_0");
constexpr std::string_view run_name = "inf:req_000001_000042_0:1";

FrameHeader header_of(const Envelope& envelope) {
  return lockstep::header_of(FrameType::inference_progress, envelope, 0);
}

/// The same bytes that to_frame makes, at the end of `out` instead of in strings of their own.
void append_json(std::string& out, const Envelope& envelope, std::string& body) {
  body.clear();
  json::write(body, envelope);
  append_frame(out, header_of(envelope), body);
}

}  // namespace

Teller::Teller(Form form, Incarnation incarnation) : form_(form) {
  envelope_.id = "w1.1";
  envelope_.type = json::enum_name(FrameType::inference_progress);
  envelope_.source = {Side::worker, teller_name, incarnation};
  envelope_.epoch = bench_epoch;
  envelope_.time = Timestamp::of({1'764'180'000'000});
  envelope_.op_id = run_name;
  envelope_.attempt = 1;
  envelope_.correlation.request = RequestId("req_000001_000042");
  event_.request_id = run_name;
  event_.execution_metrics.total_steps = 30;
  event_.execution_metrics.step_time_avg = 0.0415;
  event_.execution_metrics.estimated_completion = Timestamp::of({1'764'180'012'345});
  event_.resource_utilization = {{"6.2GB"}, Percent{93.5}};
}

void Teller::append(std::string& out, Urgency urgency) {
  ++envelope_.sequence;
  envelope_.urgency = urgency;
  event_.execution_metrics.current_step = static_cast<std::uint32_t>(envelope_.sequence % 30);
  body_.clear();
  if (form_ == Form::json) {
    envelope_.body.text.clear();
    json::write(envelope_.body.text, event_);
    append_json(out, envelope_, body_);
  } else {
    pack_envelope(body_, envelope_);
    packed::write(body_, event_);
    append_frame(out, header_of(envelope_), body_);
  }
}

Listener::Listener(Form form, Side from, Incarnation incarnation)
    : form_(form), from_(from), incarnation_(incarnation) {}

Status Listener::take(const FrameReader::View& frame) {
  const FrameHeader& header = frame.header;
  if (header.incarnation != incarnation_ || header.epoch != bench_epoch || header.sequence != sequence_ + 1) {
    return fail(ErrorCode::invalid_argument, cat("frame ", header.sequence, " does not continue this link"));
  }
  sequence_ = header.sequence;
  if (form_ == Form::packed) {
    LOCKSTEP_TRY_STATUS(unpack_envelope(header, frame.body, envelope_, message_));
    LOCKSTEP_TRY_STATUS(packed::read_bytes(message_, event_));
  } else {
    frame_.header = header;
    frame_.body.assign(frame.body);
    envelope_ = LOCKSTEP_TRY(from_frame(frame_));
    message_ = envelope_.body.text;
    LOCKSTEP_TRY_STATUS(json::read_text(message_, event_));
  }
  if (envelope_.source.side != from_) return fail(ErrorCode::not_owner, "it speaks for the other side", "/source/side");
  return {};
}

Relay::Relay(Form form, Incarnation teller, std::size_t subscribers)
    : form_(form), from_teller_(form, Side::worker, teller), sequences_(subscribers, 0) {
  // As many runs as a busy server has: an owner is found among others.
  for (int i = 0; i < 64; ++i) runs_.emplace(cat("inf:req_000001_0000", i + 10, "_0:1"), WorkerId("worker_1"));
  runs_[std::string(run_name)] = teller_name;
}

Status Relay::pass_on(const FrameReader::View& frame, std::vector<std::string>& out) {
  LOCKSTEP_TRY_STATUS(ownership::may_send(Side::worker, static_cast<FrameType>(frame.header.type)));
  LOCKSTEP_TRY_STATUS(from_teller_.take(frame));
  const auto run = runs_.find(from_teller_.event().request_id);
  if (run == runs_.end() || run->second != from_teller_.envelope().source.worker_id) {
    return fail(ErrorCode::not_owner, "the run is not of this worker", "/request_id");
  }
  Envelope& envelope = from_teller_.envelope();
  envelope.source.side = Side::orchestrator;
  body_.clear();
  if (form_ == Form::packed) {  // once, for all; the message was read and found valid, so its bytes go on as they are
    pack_envelope(body_, envelope);
    body_.append(from_teller_.message());
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    envelope.sequence = ++sequences_[i];
    if (form_ == Form::packed) {
      append_frame(out[i], header_of(envelope), body_);
    } else {
      append_json(out[i], envelope, body_);
    }
  }
  return {};
}

}  // namespace lockstep::bench
