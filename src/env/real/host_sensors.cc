#include "env/real/host_sensors.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/text.h"

namespace lockstep::real {

namespace fs = std::filesystem;

namespace {

// Not by >>: inside a Python module with a C++ library of its own, the numeric part of streams finds the locale of
// another one and reads 0.
template <class Number>
std::optional<Number> number_of(const std::string& text) {
  Number value{};
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) return std::nullopt;
  return value;
}

template <class Number>
std::optional<Number> number_in(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return number_of<Number>(line);
}

/// Adds up `file` of every folder below `folder` whose name starts with `prefix`; absent when there is none.
template <class Number, class Join>
std::optional<Number> over(const fs::path& folder, std::string_view prefix, std::string_view file, Join join) {
  std::optional<Number> all;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    const auto one = number_in<Number>(entry.path() / file);
    if (one) all = all ? join(*all, *one) : *one;
  }
  return all;
}

const auto sum = [](auto a, auto b) { return a + b; };
const auto greatest = [](auto a, auto b) { return std::max(a, b); };

/// The value of "name:  value" in a file of such lines.
std::string line_of(const fs::path& path, std::string_view name) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (!line.starts_with(name)) continue;
    const std::size_t at = line.find_first_not_of(" \t:", name.size());
    return at == std::string::npos ? "" : line.substr(at);
  }
  return "";
}

Bytes kib(const std::string& text) { return Bytes{number_of<std::uint64_t>(text).value_or(0) * 1024}; }

}  // namespace

HostSensors::HostSensors(std::string root) : root_(std::move(root)) {}

std::string HostSensors::name() const { return line_of(fs::path(root_) / "proc/cpuinfo", "model name"); }

HostReading HostSensors::read() {
  const fs::path root(root_);
  HostReading out;
  if (const auto thousandths = over<double>(root / "sys/class/thermal", "thermal_zone", "temp", greatest)) {
    out.temperature = *thousandths / 1000;
  }
  out.memory_errors = over<std::uint64_t>(root / "sys/devices/system/edac/mc", "mc", "ue_count", sum);
  out.throttled =
      over<std::uint64_t>(root / "sys/devices/system/cpu", "cpu", "thermal_throttle/core_throttle_count", sum);
  const auto now = std::chrono::steady_clock::now();
  // "intel-rapl:0" is a package; "intel-rapl:0:0" a part of it. AMD processors have the same files.
  std::optional<double> energy;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(root / "sys/class/powercap", none)) {
    const std::string folder = entry.path().filename().string();
    if (!folder.starts_with("intel-rapl:") || std::ranges::count(folder, ':') != 1) continue;
    if (const auto micro = number_in<double>(entry.path() / "energy_uj")) energy = energy.value_or(0) + *micro / 1e6;
  }
  if (energy && energy_before_ && *energy >= *energy_before_) {  // the counter wraps; that reading is left out
    const double elapsed = std::chrono::duration<double>(now - read_before_).count();
    if (elapsed > 0) out.power_draw = (*energy - *energy_before_) / elapsed;
  }
  energy_before_ = energy;
  read_before_ = now;
  out.memory_total = kib(line_of(root / "proc/meminfo", "MemTotal"));
  const Bytes available = kib(line_of(root / "proc/meminfo", "MemAvailable"));
  out.memory_used = available < out.memory_total ? out.memory_total - available : Bytes{};
  out.process_memory = kib(line_of(root / "proc/self/status", "VmRSS"));
  return out;
}

}  // namespace lockstep::real
