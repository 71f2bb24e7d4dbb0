#pragma once

// The frames that wait to cross one link, in four lanes (§2.7). The most urgent leaves first, so a P0 never waits
// behind queued P3 traffic. Three rules keep that legal:
//
//   numbers   each lane counts its frames when they leave, so the receiver still sees every gap
//   newest    a sample takes the place of the one about the same thing that waits; the last value always leaves
//   order     frames with one ordering key leave in the order in which they came: what waits in a lower lane is lifted
//             in front of the more urgent one behind it, and leaves as a frame of that lane
//
// Everything that is no sample is never dropped: above the limits the link has to end, and the next one starts from
// what both sides really have.

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/histogram.h"
#include "base/text.h"
#include "base/units.h"
#include "propagation/framing.h"

namespace lockstep {

struct LaneLimits {
  std::size_t frames_max = 1u << 18;
  std::size_t bytes_max = 64u << 20;  // as much as a link itself keeps for a peer that does not read
};

/// Of one lane, over all links of a driver. latency: from push to pop.
struct LaneCounters {
  std::uint64_t queued = 0;
  std::uint64_t sent = 0;
  std::uint64_t conflated = 0;
  std::uint64_t lifted = 0;
  Histogram latency{sync_bounds};
};
using LanesCounters = std::array<LaneCounters, 4>;

/// Cargo is what rides beside a frame: descriptors. One thread.
template <class Cargo>
class Lanes {
 public:
  struct Leaving {
    Frame frame;
    Cargo cargo;
  };

  explicit Lanes(LanesCounters& counters, LaneLimits limits = {}) : counters_(&counters), limits_(limits) {}
  ~Lanes() {
    for (std::size_t i = 0; i < lanes_.size(); ++i) (*counters_)[i].queued -= lanes_[i].size();
  }
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  /// The frame is not numbered yet; its header says its lane. resource_exhausted above the limits: the link must end.
  Status push(Frame frame, Passage passage, Cargo cargo, Nanos now) {
    const auto lane = static_cast<std::size_t>(frame.header.urgency);
    if (!passage.newer.empty()) {
      if (const auto place = samples_.find(passage.newer); place != samples_.end()) {
        ++(*counters_)[place->second->lane].conflated;
        const At old = place->second;
        if (old->lane == lane && last_of_its_order(old)) {
          bytes_ += size_of(frame) - old->size;
          old->size = size_of(frame);
          old->frame = std::move(frame);
          old->cargo = std::move(cargo);
          return {};  // it keeps its place and its time: newer values must not make it wait longer
        }
        now = old->since;
        take_out(old);
      }
    }
    const std::size_t bytes = bytes_ + size_of(frame);
    if (frames_ >= limits_.frames_max || bytes > limits_.bytes_max) {
      return fail(ErrorCode::resource_exhausted,
                  cat(frames_, " frames of ", bytes_, " bytes wait for the other side; the limits are ",
                      limits_.frames_max, " frames and ", limits_.bytes_max, " bytes"));
    }
    if (!passage.order.empty()) lift(passage.order, lane);
    const std::size_t size = size_of(frame);
    lanes_[lane].push_back({std::move(frame), std::move(passage), std::move(cargo), lane, now, size});
    const At at = std::prev(lanes_[lane].end());
    if (!at->passage.newer.empty()) samples_[at->passage.newer] = at;
    if (!at->passage.order.empty()) orders_[at->passage.order].push_back(at);
    bytes_ = bytes;
    ++frames_;
    ++(*counters_)[lane].queued;
    return {};
  }

  /// The next frame, numbered as it leaves; nothing when none waits.
  std::optional<Leaving> pop(Nanos now) {
    for (std::size_t lane = 0; lane < lanes_.size(); ++lane) {
      if (lanes_[lane].empty()) continue;
      const At at = lanes_[lane].begin();
      LOCKSTEP_CHECK(at->passage.order.empty() || orders_.at(at->passage.order).front() == at);
      LaneCounters& counters = (*counters_)[lane];
      ++counters.sent;
      counters.latency.observe(now - at->since);
      number(at->frame, static_cast<Urgency>(lane), ++left_[lane]);
      Leaving leaving{std::move(at->frame), std::move(at->cargo)};
      take_out(at);
      return leaving;
    }
    return std::nullopt;
  }

  bool empty() const { return frames_ == 0; }
  std::size_t frames() const { return frames_; }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Item {
    Frame frame;
    Passage passage;
    Cargo cargo;
    std::size_t lane;
    Nanos since;
    std::size_t size;  // when it came; numbering it changes its length
  };
  using At = typename std::list<Item>::iterator;

  static std::size_t size_of(const Frame& frame) { return frame_header_size + frame.body.size(); }

  bool last_of_its_order(At at) const {
    return at->passage.order.empty() || orders_.at(at->passage.order).back() == at;
  }

  void lift(const std::string& order, std::size_t lane) {
    const auto place = orders_.find(order);
    if (place == orders_.end()) return;
    for (const At at : place->second) {
      if (at->lane <= lane) continue;
      --(*counters_)[at->lane].queued;
      ++(*counters_)[lane].queued;
      ++(*counters_)[lane].lifted;
      lanes_[lane].splice(lanes_[lane].end(), lanes_[at->lane], at);
      at->lane = lane;
    }
  }

  void take_out(At at) {
    --(*counters_)[at->lane].queued;
    --frames_;
    bytes_ -= at->size;
    if (const auto sample = samples_.find(at->passage.newer); sample != samples_.end() && sample->second == at) {
      samples_.erase(sample);
    }
    if (!at->passage.order.empty()) {
      const auto order = orders_.find(at->passage.order);
      std::erase(order->second, at);
      if (order->second.empty()) orders_.erase(order);
    }
    lanes_[at->lane].erase(at);
  }

  LanesCounters* counters_;
  LaneLimits limits_;
  std::array<std::list<Item>, 4> lanes_;
  std::array<std::uint64_t, 4> left_{};
  std::map<std::string, At> samples_;
  std::map<std::string, std::deque<At>> orders_;
  std::size_t frames_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace lockstep
