#pragma once

// What a figure was measured on: it stands beside every number that a benchmark or the simulator prints (design §8).

#include <string>

#include <boost/describe.hpp>

namespace lockstep {

struct MachineFacts {
  std::string cpu;  // as its maker calls it; empty where the kernel does not say
  unsigned cores = 0;
  std::string kernel;
};
BOOST_DESCRIBE_STRUCT(MachineFacts, (), (cpu, cores, kernel))

MachineFacts this_machine();

}  // namespace lockstep
