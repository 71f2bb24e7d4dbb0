#pragma once

// A simulated worker process around the real machine, what its descriptors lead to, and a message between the sides.

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/text.h"
#include "orchestrator/input.h"
#include "propagation/lanes.h"
#include "runtime/loop.h"
#include "worker/machine.h"

namespace lockstep::sim {

/// What a descriptor leads to: pixels by digest, or a segment.
using Content = std::string;

inline std::string pixels_of(const std::string& prompt, std::uint64_t seed) {
  return sha256_hex(cat(prompt, "#", seed));
}
inline std::string processed(const std::string& source) { return sha256_hex(cat("post:", source)); }
/// The planted unsafe ones: a known share of all pixels.
inline bool is_unsafe(const std::string& source) { return source[0] == '0'; }

/// A segment's content names its fill, so that two fills of one component are two memories: "base-a/unet#7".
inline std::string component_of(const Content& segment) { return segment.substr(0, segment.find('#')); }

inline const WorkerId guest("guest");       // dials by itself, and is started again by somebody else
inline const std::string secret("sesame");  // what it must know
inline const std::string schema_digest("schema of this version");

/// Every third process is of another version: it and the orchestrator speak JSON.
inline std::string schema_of(std::int64_t pid) { return pid % 3 == 0 ? "schema of another version" : schema_digest; }

struct Message {
  Frame frame;
  std::vector<Content> contents;
  LinkId link = 0;
  Passage passage = {};
  std::uint64_t pushed = 0;  // counts on its line
};

/// One direction of one connection, of finite bandwidth: what waits for it waits in lanes.
struct Line {
  Line(LanesCounters& counters, LinkId id, Nanos pace) : lanes(counters), link(id), byte_time(pace) {}
  Lanes<std::shared_ptr<Message>> lanes;
  LinkId link;
  Nanos byte_time;
  bool busy = false;
  std::uint64_t pushed = 0;
  std::map<std::string, std::uint64_t> last_of_order;    // S14: what has arrived, by ordering key
  std::array<std::uint64_t, 4> arrived{};                // by lane
  std::map<std::string, std::uint64_t> newest_of_sample;  // pushed, not seen to arrive yet
};

/// What a node takes for the time. The world's own is the orchestrator's.
struct Clock {
  std::int64_t rate = 1000;  // its seconds in a thousand of the world's
  Nanos stood_still = 0;     // while the node was suspended
  Nanos wall_ahead = 0;
  Nanos local(Nanos world) const { return (world - stood_still) * rate / 1000; }
  /// When it shows `local`, if it does not stand still again.
  Nanos world(Nanos local) const { return (local * 1000 + rate - 1) / rate + stood_still; }
};

/// A worker process. It exists from spawn to death; the machine inside is the real one.
struct Process {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid = 0;
  Bytes budget;
  worker::Machine machine;
  Loop<worker::Machine> loop;
  std::map<worker::HandleId, Content> handles;
  worker::HandleId handles_made = 0;
  Bytes kept;                    // of a load that failed
  std::optional<ModelId> keeps;  // that load's model, until its machine has let go of it
  Nanos kept_until = 0;
  std::map<worker::TaskId, bool> cancelled;
  std::map<TransactionId, Frame> prepares;  // that it has heard
  std::set<TransactionId> aborted;          // S5: these it never promises again
  std::set<TransactionId> committed;
  std::set<TransactionId> heard;            // S23: these it may remember
  std::set<TransactionId> promised;         // S2: only these may be committed
  std::map<std::pair<ModelId, std::string>, Content> segments;  // kept
  std::map<std::string, std::uint64_t> timers;
  Clock clock;
  bool paused = false;                             // it exists, and does nothing
  std::vector<std::function<void()>> when_awake;   // what has come meanwhile, in order
  bool alive = true;
  bool runs = false;       // it has come as far as its link
  LinkId link = 0;         // the connection as the worker sees it
  bool link_up = false;    // bytes still cross it
  Nanos cut_off_until = 0;  // by a partition: what is sent waits, and no new link opens
  bool accepted = false;   // the orchestrator has bound it: later frames are the worker's
  std::set<ModelId> failed_loads;  // models whose newest load failed
  bool hung = false;               // its handlers answer no more
  bool speaks_badly = false;       // it was made to send a frame of an earlier epoch
  bool measures = false;   // its device, beside nothing else
  Nanos held_until = 0;    // a handler holds the interpreter: no other thread of Python says anything
  Nanos stalls_until = 0;  // its handlers may be silent for longer than the progress deadline until then
  std::shared_ptr<Line> to_worker;        // of the connection that spoke last
  std::shared_ptr<Line> to_orchestrator;
  Nanos to_worker_at = 0;  // order inside a direction
  Nanos to_orchestrator_at = 0;

  Process(WorkerId id, Incarnation life, std::int64_t number, Bytes memory, std::string schema)
      : worker_id(id),
        incarnation(life),
        pid(number),
        budget(memory),
        machine({.worker_id = id,
                 .incarnation = life,
                 .pid = number,
                 .version = "sim",
                 .reconnect_limit = seconds(30),
                 .secret = id == guest ? std::optional(secret) : std::nullopt,
                 .device = id == guest ? std::optional(OfferedDevice{"cpu", memory}) : std::nullopt,
                 .schema_digest = std::move(schema)}),
        loop(machine, Lsn{}) {}
};

}  // namespace lockstep::sim
