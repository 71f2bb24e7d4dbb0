#pragma once

// The two sequential chains of §2.8, as data and as a gate. A change of a later stage is held until every change of an
// earlier stage that is about the same thing has been applied by all of its live targets. The order is that of one
// device or one transaction, not of the whole system. A target that is dead or late leaves the set, so nobody waits for
// it for ever. Samples never wait.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "propagation/urgency_table.h"

namespace lockstep {

enum class Chain : std::uint8_t { health, allocation };
BOOST_DESCRIBE_ENUM(Chain, health, allocation)

/// One event in one stage. name: the stage as the specification calls it.
struct StageRow {
  Chain chain;
  int stage;  // from 0
  std::string_view name;
  FrameType type;
};
std::span<const StageRow> ordering_table();

/// The stage of an event in a chain; nothing when it has none there, or when it is a sample.
std::optional<int> stage_of(Chain chain, FrameType type, Condition condition);

/// Holds what may not leave yet. Pure: time is passed in.
class Ordering {
 public:
  using ChangeId = std::uint64_t;

  /// One change of state for some workers. key: the device or transaction that it is about.
  struct Staged {
    ChangeId id = 0;
    Chain chain = Chain::health;
    std::string key;
    int stage = 0;
    std::set<WorkerId> targets;  // live ones
  };

  /// target_wait: how long a released change is waited for.
  explicit Ordering(Nanos target_wait) : target_wait_(target_wait) {}

  // Each returns the changes that may leave now, in the order in which they came.
  std::vector<ChangeId> add(Staged change, Nanos now);
  std::vector<ChangeId> applied(ChangeId change, const WorkerId& target, Nanos now);
  std::vector<ChangeId> gone(const WorkerId& target, Nanos now);
  /// Targets whose time is over leave the set.
  std::vector<ChangeId> late(Nanos now);

  /// When late() should be called next.
  std::optional<Nanos> next_deadline() const;
  std::size_t waiting() const;

 private:
  struct Item {
    Staged change;
    bool released = false;
    Nanos deadline = 0;
  };
  using Place = std::pair<Chain, std::string>;
  std::vector<ChangeId> release(const Place& place, Nanos now);
  template <class F>
  std::vector<ChangeId> drop_targets(F&& drop, Nanos now);

  Nanos target_wait_;
  std::map<Place, std::vector<Item>> items_;
};

}  // namespace lockstep
