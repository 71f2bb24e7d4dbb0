#pragma once

#include "domains/memory/types.h"
#include "state/table.h"

namespace lockstep::memory {

struct Tables {
  Table<Allocation> allocations{"memory.allocations"};  // key: allocation id
  Table<Segment> segments{"memory.segments"};           // key: model/component

  template <class F>
  void for_each_table(F&& f) {
    f(allocations);
    f(segments);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(allocations);
    f(segments);
  }
};

}  // namespace lockstep::memory
