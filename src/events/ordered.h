#pragma once

// A JSON object whose keys are free, in the order in which they were written: a message is passed on the way it came
// (§2.1 routing_table is not in alphabetical order). Few keys; found by looking at each.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lockstep {

template <class T>
struct Ordered {
  std::vector<std::pair<std::string, T>> items;

  /// nullptr when there is no such key.
  const T* find(std::string_view key) const {
    const auto place = std::ranges::find(items, key, &std::pair<std::string, T>::first);
    return place == items.end() ? nullptr : &place->second;
  }
  friend bool operator==(const Ordered&, const Ordered&) = default;
};

}  // namespace lockstep
