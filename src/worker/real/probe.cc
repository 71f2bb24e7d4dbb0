#include "worker/real/probe.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
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

/// Chips for data centers without an encoder, for which the driver tells a capacity all the same (seen on an H200).
bool lacks_encoder(const std::optional<real::ComputeCapability>& chip) {
  constexpr std::array<real::ComputeCapability, 3> without{{{8, 0}, {9, 0}, {10, 0}}};
  return chip && std::ranges::find(without, *chip) != without.end();
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

DeviceCapabilityDiscovered gpu_of(const real::GpuFacts& facts) {
  DeviceCapabilityDiscovered out;
  constexpr std::array<std::pair<real::ComputeCapability, std::string_view>, 4> since{{
      {{5, 3}, "fp16_inference"},
      {{7, 0}, "tensor_core_acceleration"},
      {{8, 0}, "bf16_inference"},
      {{8, 9}, "fp8_inference"},
  }};
  for (const auto& [least, word] : since) {
    if (facts.compute_capability && *facts.compute_capability >= least) out.new_capabilities.emplace_back(word);
  }
  if (facts.encodes_h264.value_or(false) && !lacks_encoder(facts.compute_capability)) {
    out.new_capabilities.emplace_back("nvenc_encoding");
  }
  const auto score = [&](std::string name, double value, double ten) {
    out.capability_scores.items.emplace_back(std::move(name), std::clamp(value / ten * 10, 0.0, 10.0));
  };
  constexpr double mhz = 1e6;
  if (facts.cores && facts.clock_max) score("compute", *facts.cores * (*facts.clock_max * mhz) * 2, 100e12);
  if (facts.memory_clock_max && facts.memory_bus_width) {
    score("memory_bandwidth", *facts.memory_clock_max * mhz * 2 * (*facts.memory_bus_width / 8.0), 5e12);
  }
  return out;
}

DeviceCapabilityDiscovered probe_gpu(const real::NvmlGpu& gpu) {
  DeviceCapabilityDiscovered out = gpu_of(gpu.facts());
  if (!gpu.name().empty()) out.device_name = gpu.name();
  if (!gpu.driver_version().empty()) out.driver_version = gpu.driver_version();
  return out;
}

}  // namespace lockstep::worker
