#include "propagation/ordering.h"

#include <algorithm>

namespace lockstep {

namespace {

using enum FrameType;

constexpr std::array rows{
    // Device Health -> Memory Status -> Model Availability -> Processing Readiness
    StageRow{Chain::health, 0, "Device Health", device_health_update},
    StageRow{Chain::health, 0, "Device Health", device_routing_update},
    StageRow{Chain::health, 1, "Memory Status", vram_usage_update},
    StageRow{Chain::health, 1, "Memory Status", memory_policy_update},
    StageRow{Chain::health, 2, "Model Availability", model_cache_update},
    StageRow{Chain::health, 3, "Processing Readiness", session_control_command},
    // Memory Allocation -> Model Loading -> Inference Readiness -> Postprocessing Preparation
    StageRow{Chain::allocation, 0, "Memory Allocation", system_memory_allocated},
    StageRow{Chain::allocation, 1, "Model Loading", model_load_request},
    StageRow{Chain::allocation, 1, "Model Loading", model_loading_progress},
    StageRow{Chain::allocation, 2, "Inference Readiness", inference_orchestration},
    StageRow{Chain::allocation, 3, "Postprocessing Preparation", safety_policy_update},
};

}  // namespace

std::span<const StageRow> ordering_table() { return rows; }

std::optional<int> stage_of(Chain chain, FrameType type, Condition condition) {
  if (urgency_row(type, condition).sample) return std::nullopt;
  const auto row = std::ranges::find_if(
      rows, [&](const StageRow& each) { return each.chain == chain && each.type == type; });
  return row == rows.end() ? std::nullopt : std::optional(row->stage);
}

std::vector<Ordering::ChangeId> Ordering::release(const Place& place, Nanos now) {
  std::vector<ChangeId> out;
  const auto at = items_.find(place);
  if (at == items_.end()) return out;
  std::vector<Item>& items = at->second;
  for (bool again = true; again;) {
    again = std::erase_if(items, [](const Item& each) { return each.released && each.change.targets.empty(); }) > 0;
    for (auto item = items.begin(); item != items.end(); ++item) {
      if (item->released) continue;
      // Only what came before it: a later change of an earlier stage waits for nobody and holds up nothing older.
      const bool held = std::any_of(items.begin(), item, [&](const Item& earlier) {
        return earlier.change.stage < item->change.stage;
      });
      if (held) continue;
      item->released = true;
      item->deadline = now + target_wait_;
      out.push_back(item->change.id);
      again = again || item->change.targets.empty();
    }
  }
  if (items.empty()) items_.erase(at);
  return out;
}

std::vector<Ordering::ChangeId> Ordering::add(Staged change, Nanos now) {
  const Place place{change.chain, change.key};
  items_[place].push_back({std::move(change)});
  return release(place, now);
}

template <class F>
std::vector<Ordering::ChangeId> Ordering::drop_targets(F&& drop, Nanos now) {
  std::vector<Place> touched;
  for (auto& [place, items] : items_) {
    for (Item& item : items) {
      if (drop(item)) touched.push_back(place);
    }
  }
  std::vector<ChangeId> out;
  for (const Place& place : touched) {
    for (const ChangeId id : release(place, now)) out.push_back(id);
  }
  std::ranges::sort(out);
  return out;
}

std::vector<Ordering::ChangeId> Ordering::applied(ChangeId change, const WorkerId& target, Nanos now) {
  return drop_targets(
      [&](Item& item) { return item.released && item.change.id == change && item.change.targets.erase(target) > 0; },
      now);
}

std::vector<Ordering::ChangeId> Ordering::gone(const WorkerId& target, Nanos now) {
  return drop_targets([&](Item& item) { return item.change.targets.erase(target) > 0; }, now);
}

std::vector<Ordering::ChangeId> Ordering::late(Nanos now) {
  return drop_targets(
      [&](Item& item) {
        if (!item.released || item.deadline > now) return false;
        item.change.targets.clear();
        return true;
      },
      now);
}

std::optional<Nanos> Ordering::next_deadline() const {
  std::optional<Nanos> next;
  for (const auto& [place, items] : items_) {
    for (const Item& item : items) {
      if (item.released && (!next || item.deadline < *next)) next = item.deadline;
    }
  }
  return next;
}

std::size_t Ordering::waiting() const {
  std::size_t count = 0;
  for (const auto& [place, items] : items_) {
    count += static_cast<std::size_t>(std::ranges::count_if(items, [](const Item& each) { return !each.released; }));
  }
  return count;
}

}  // namespace lockstep
