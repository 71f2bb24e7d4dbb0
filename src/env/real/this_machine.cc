#include "env/real/this_machine.h"

#include <fstream>
#include <thread>

namespace lockstep {

MachineFacts this_machine() {
  MachineFacts machine;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; machine.cpu.empty() && std::getline(info, line);) {
    if (line.starts_with("model name")) machine.cpu = line.substr(line.find(':') + 2);
  }
  machine.cores = std::thread::hardware_concurrency();
  std::ifstream kernel("/proc/sys/kernel/osrelease");
  std::getline(kernel, machine.kernel);
  return machine;
}

}  // namespace lockstep
