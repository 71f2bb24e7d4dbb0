#pragma once

#include "domains/memory/grants.h"
#include "domains/memory/policy.h"
#include "domains/memory/types.h"
#include "state/table.h"

namespace lockstep::memory {

struct Tables {
  Table<Allocation> allocations{"memory.allocations"};  // key: allocation id
  Table<Segment> segments{"memory.segments"};           // key: model/component
  Table<Grant> grants{"memory.grants"};                 // key: allocation id
  Table<Pressure> pressure{"memory.pressure"};          // key: pool; absent: low
  Table<Policy> policies{"memory.policies"};            // one row, key "policy"

  Policy policy() const {
    const Policy* row = policies.find("policy");
    return row == nullptr ? Policy{} : *row;
  }
  PressureLevel level_of(std::string_view pool) const {
    const Pressure* row = pressure.find(std::string(pool));
    return row == nullptr ? PressureLevel::low : row->level;
  }

  template <class F>
  void for_each_table(F&& f) {
    f(allocations);
    f(segments);
    f(grants);
    f(pressure);
    f(policies);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(allocations);
    f(segments);
    f(grants);
    f(pressure);
    f(policies);
  }
};

}  // namespace lockstep::memory
