// What /proc says about this process.

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "server/metrics.h"

namespace lockstep::server {

ProcessFacts process_facts() {
  ProcessFacts facts;
  std::ifstream stat("/proc/self/stat");
  std::string text;
  std::getline(stat, text);
  const std::size_t name_end = text.rfind(')');  // the name may hold spaces and brackets
  if (name_end != std::string::npos) {
    std::istringstream fields(text.substr(name_end + 1));
    std::string skipped;
    const auto skip = [&](int count) {
      while (count-- > 0) fields >> skipped;
    };
    double user = 0;
    double system = 0;
    double start = 0;
    double pages = 0;
    skip(11);  // fields 3 to 13
    fields >> user >> system;
    skip(4);
    fields >> facts.threads;
    skip(1);
    fields >> start >> facts.virtual_bytes >> pages;
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    facts.cpu_seconds = (user + system) / ticks;
    facts.resident_bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::ifstream boot("/proc/stat");
    for (std::string line; std::getline(boot, line);) {
      if (line.starts_with("btime ")) facts.start_seconds = std::stod(line.substr(6)) + start / ticks;
    }
  }
  std::error_code error;
  for (std::filesystem::directory_iterator at("/proc/self/fd", error), end; !error && at != end; at.increment(error)) {
    ++facts.open_descriptors;
  }
  if (facts.open_descriptors > 0) --facts.open_descriptors;  // the one that reads the folder
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) facts.descriptors_max = limit.rlim_cur;
  return facts;
}

}  // namespace lockstep::server
