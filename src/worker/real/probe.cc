#include "worker/real/probe.h"

#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace lockstep::worker {

namespace {

/// The value of the first line that begins with `name`.
std::string_view value_of(std::string_view text, std::string_view name) {
  std::size_t at = text.starts_with(name) ? 0 : text.find(std::string("\n") += name);
  if (at == std::string_view::npos) return {};
  at = text.find(':', at);
  if (at == std::string_view::npos) return {};
  std::string_view value = text.substr(at + 1, text.find('\n', at) - at - 1);
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  return value;
}

bool has_flag(std::string_view flags, std::string_view flag) {
  for (std::size_t at = flags.find(flag); at != std::string_view::npos; at = flags.find(flag, at + 1)) {
    const bool begins = at == 0 || flags[at - 1] == ' ';
    const std::size_t end = at + flag.size();
    if (begins && (end == flags.size() || flags[end] == ' ')) return true;
  }
  return false;
}

double copies_per_second() {
  constexpr std::size_t size = 32u << 20;  // beyond most caches
  std::vector<char> from(size, 'a');
  std::vector<char> to(size, 'b');
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    std::memcpy(to.data(), from.data(), size);
    from.front() = to.back();  // the copy must not be optimised away
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (took.count() > 0) best = std::max(best, static_cast<double>(size) / took.count());
  }
  return best;
}

}  // namespace

DeviceCapabilityDiscovered processor_of(std::string_view cpuinfo) {
  DeviceCapabilityDiscovered out;
  if (const std::string_view name = value_of(cpuinfo, "model name"); !name.empty()) out.device_name = std::string(name);
  const std::string_view flags = value_of(cpuinfo, "flags");
  for (const std::string_view flag : {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16"}) {
    if (has_flag(flags, flag)) out.new_capabilities.emplace_back(flag);
  }
  return out;
}

double copy_score(double bytes_per_second) { return std::clamp(bytes_per_second / 10e9, 0.0, 10.0); }

DeviceCapabilityDiscovered probe_processor() {
  std::ifstream in("/proc/cpuinfo");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  DeviceCapabilityDiscovered out = processor_of(text);
  utsname kernel{};
  if (::uname(&kernel) == 0) out.driver_version = std::string("Linux ") + kernel.release;
  out.capability_scores.items.emplace_back("memory_bandwidth", copy_score(copies_per_second()));
  return out;
}

}  // namespace lockstep::worker
