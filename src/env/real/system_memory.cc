#include "env/real/system_memory.h"

#include <charconv>
#include <fstream>
#include <iterator>

#include "base/text.h"

namespace lockstep::real {

namespace {

std::optional<std::string> content(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  return std::string{std::istreambuf_iterator<char>(in), {}};
}

std::optional<std::uint64_t> number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) return std::nullopt;
  return value;
}

/// What follows `name` where it begins a line.
std::optional<std::string_view> after_name(std::string_view text, std::string_view name) {
  for (std::size_t at = 0; at < text.size();) {
    if (text.substr(at).starts_with(name)) return text.substr(at + name.size());
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    at = end + 1;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> named_number(std::string_view text, std::string_view name) {
  const auto rest = after_name(text, name);
  return rest ? number(*rest) : std::nullopt;
}

/// "full avg10=1.23 avg60=..." -> 0.0123
double full_stall(std::string_view text) {
  const auto rest = after_name(text, "full avg10=");
  double percent = 0;
  if (rest) std::from_chars(rest->data(), rest->data() + rest->size(), percent);
  return percent / 100;
}

/// The folder of this process's group. Inside a container its own group is the root of what it sees.
std::string group_folder(const std::string& root) {
  const auto groups = content(cat(root, "proc/self/cgroup"));
  const std::string mount = cat(root, "sys/fs/cgroup");
  if (!groups) return mount;
  const auto path = after_name(*groups, "0::");
  if (!path) return mount;
  return cat(mount, path->substr(0, path->find('\n')));
}

void read_group(const std::string& root, MemoryReading& reading) {
  const std::string folder = group_folder(root);
  const auto limit = content(cat(folder, "/memory.max"));
  const auto current = content(cat(folder, "/memory.current"));
  if (!limit || !current) return;
  const auto bytes = number(*limit);  // "max" is no number: no limit
  const auto used = number(*current);
  if (!bytes || !used) return;
  const auto stat = content(cat(folder, "/memory.stat"));
  const std::uint64_t cache = stat ? named_number(*stat, "inactive_file ").value_or(0) : 0;
  reading.group_limit = Bytes{*bytes};
  reading.group_used = Bytes{*used} - Bytes{cache};
}

}  // namespace

std::optional<Bytes> meminfo_line(std::string_view text, std::string_view name) {
  const auto kib = named_number(text, cat(name, ":"));
  if (!kib) return std::nullopt;
  return Bytes{*kib << 10};
}

Result<MemoryReading> read_memory(const std::string& root) {
  const auto meminfo = content(cat(root, "proc/meminfo"));
  const auto total = meminfo ? meminfo_line(*meminfo, "MemTotal") : std::nullopt;
  const auto available = meminfo ? meminfo_line(*meminfo, "MemAvailable") : std::nullopt;
  if (!total || !available) return fail(ErrorCode::unavailable, cat(root, "proc/meminfo cannot be read"));
  MemoryReading reading{*total, *available, std::nullopt, Bytes{}, 0};
  if (const auto pressure = content(cat(root, "proc/pressure/memory"))) reading.stall = full_stall(*pressure);
  read_group(root, reading);
  return reading;
}

}  // namespace lockstep::real
