#pragma once

// The shapes that bench/propagation.cc measures, ours and the floor's: three processes, or one and eight subscribers.

#include <string>
#include <vector>

#include "base/result.h"
#include "bench/relay.h"

namespace lockstep::bench {

/// CPUs of the orchestrator and of the workers; -1: where the scheduler puts them.
struct Placement {
  int hub = -1;
  int workers = -1;
};

enum class Kind { ours, floor };

/// What the hub does before it passes on: nothing, or one synced append of all that has arrived. `file` is new.
struct Durability {
  bool durable = false;
  std::string file;
};

/// Microseconds from before the event is packed until it has been read by the other worker, one in flight.
Result<std::vector<double>> one_way_us(Kind kind, Form form, Placement placement, int samples,
                                       const Durability& durability = {});

/// Deliveries in a second, to `subscribers`, with at most `window` in flight (0: what the sockets hold).
Result<double> deliveries_per_s(Kind kind, Form form, int subscribers, int messages, int window = 0,
                                const Durability& durability = {});

/// What a durable event is made of, in microseconds, one after the other as the event has them: a round trip of 300
/// bytes over a Unix socket, and one fdatasync of a 300-byte overwrite of a preallocated file on the hub's processor.
/// A disk that is asked without a pause answers sooner than one that waits between events.
struct Parts {
  std::vector<double> trip;
  std::vector<double> sync;
};
Result<Parts> parts_us(const std::string& file, Placement placement, int samples);

/// Bytes of one frame of this form.
std::size_t frame_bytes(Form form);

}  // namespace lockstep::bench
