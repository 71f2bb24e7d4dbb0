#pragma once

#include "domains/memory/types.h"
#include "state/table.h"

namespace lockstep::memory {

struct Tables {
  Table<Allocation> allocations{"memory.allocations"};  // key: allocation id

  template <class F>
  void for_each_table(F&& f) {
    f(allocations);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(allocations);
  }
};

}  // namespace lockstep::memory
