#pragma once

// What every message says about itself, apart from its body. The frame header repeats the fields that are routed on
// (type, urgency, epoch, incarnation, sequence); propagation/framing.h refuses a frame in which the two differ, so a
// message that was captured can be read, and believed, without the link it came over.

#include <cstdint>
#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "base/urgency.h"
#include "events/json_write.h"

namespace lockstep {

/// The side that speaks. In the specification: "c_sharp_orchestrator" and "python_worker".
enum class Side { orchestrator, worker };
BOOST_DESCRIBE_ENUM(Side, orchestrator, worker)

/// worker_id and incarnation name the link's worker on both sides' messages; incarnation 0 before the first welcome.
struct Source {
  Side side = Side::worker;
  WorkerId worker_id;
  Incarnation incarnation;
  friend bool operator==(const Source&, const Source&) = default;
};
BOOST_DESCRIBE_STRUCT(Source, (), (side, worker_id, incarnation))

/// How a message crosses a link. packed: events/packed.h, only where both ends announced the same schema digest.
enum class Form { json, packed };
BOOST_DESCRIBE_ENUM(Form, json, packed)

/// What this message is about, beyond its own operation. Absent where it is about no such thing.
struct Correlation {
  std::optional<TransactionId> transaction;
  std::optional<std::string> session;
  std::optional<RequestId> request;
  friend bool operator==(const Correlation&, const Correlation&) = default;
};
BOOST_DESCRIBE_STRUCT(Correlation, (), (transaction, session, request))

/// The operation a message belongs to.
struct Operation {
  std::string op_id;
  std::uint32_t attempt = 0;
  Correlation correlation;
};

/// id        never used twice by one source: an incarnation's messages, an epoch's messages are numbered
/// type      the frame's type by name, for events their event_type
/// epoch     of the orchestrator as the sender knows it; 0 in a first hello
/// sequence  per direction, link and urgency, from 1, without gaps; 0 while it waits in its lane
/// time      of the sender's wall clock; for people
/// op_id     the operation this belongs to: "load:<transaction>", "release:<model>", the run of an inference or
///           postprocessing, a transaction; empty when there is none
/// attempt   which try of the operation; a late result of an older one is dropped
/// body      the message, in the form that `form` says; propagation/framing.h reads it
struct Envelope {
  std::string id;
  std::string type;
  Source source;
  Epoch epoch;
  std::uint64_t sequence = 0;
  Timestamp time;
  Urgency urgency = Urgency::p2_normal;
  std::string op_id;
  std::uint32_t attempt = 0;
  Correlation correlation;
  RawJson body{"{}"};
  Form form = Form::json;  // of the frame it came in: not part of the message
};
BOOST_DESCRIBE_STRUCT(Envelope, (),
                      (id, type, source, epoch, sequence, time, urgency, op_id, attempt, correlation, body))

}  // namespace lockstep
