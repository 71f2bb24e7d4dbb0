#include "server/model_configuration.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/text.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

struct Found {
  std::string name;  // below the model's folder
  model::File file;
};

/// Adds the configuration files that lie in `folder` itself; `prefix` is its name below the model's, with a slash.
Status add_files(const fs::path& folder, const std::string& prefix, std::vector<Found>& found) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!model::is_configuration_file(name)) continue;
    const std::string path = entry.path().string();
    struct stat facts{};
    if (::lstat(path.c_str(), &facts) != 0) {
      return fail(ErrorCode::unavailable, cat("cannot read ", path, ": ", std::strerror(errno)));
    }
    if (S_ISDIR(facts.st_mode)) continue;
    if (S_ISLNK(facts.st_mode)) {
      return fail(ErrorCode::invalid_argument,
                  cat(path, " is a link; configuration must be files of the model's own folder",
                      " (`lockstep models add` copies what links lead to)"));
    }
    if (!S_ISREG(facts.st_mode)) {
      return fail(ErrorCode::invalid_argument, cat(path, " is no file; it cannot be configuration"));
    }
    const std::int64_t modified = facts.st_mtim.tv_sec * std::int64_t{1'000'000'000} + facts.st_mtim.tv_nsec;
    found.push_back({prefix + name, {path, Bytes{static_cast<std::uint64_t>(facts.st_size)}, modified}});
  }
  if (error) return fail(ErrorCode::unavailable, cat("cannot read ", folder.string(), ": ", error.message()));
  return {};
}

}  // namespace

Result<std::optional<ScannedConfiguration>> scan_configuration(const fs::path& folder, bool sub_folders) {
  std::vector<Found> found;
  LOCKSTEP_TRY_STATUS(add_files(folder, "", found));
  std::error_code error;
  for (const auto& entry : sub_folders ? fs::directory_iterator(folder, error) : fs::directory_iterator()) {
    const std::string name = entry.path().filename().string();
    std::error_code ignored;
    if (name.starts_with('.') || !entry.is_directory(ignored)) continue;
    const std::size_t before = found.size();
    LOCKSTEP_TRY_STATUS(add_files(entry.path(), name + "/", found));
    if (found.size() > before && entry.is_symlink(ignored)) {
      return fail(ErrorCode::invalid_argument, cat(entry.path().string(), " is a link and holds ", found[before].name,
                                                   "; configuration must be files of the model's own folder"));
    }
  }
  if (error) return fail(ErrorCode::unavailable, cat("cannot read ", folder.string(), ": ", error.message()));
  if (found.empty()) return std::optional<ScannedConfiguration>();
  std::ranges::sort(found, {}, &Found::name);
  ScannedConfiguration out;
  out.component.name = model::configuration_name;
  std::vector<model::NamedFile> files;
  for (Found& each : found) {
    files.push_back({std::move(each.name), each.file.size});
    out.component.files.push_back(std::move(each.file));
  }
  out.layout = std::make_shared<const model::SegmentLayout>(LOCKSTEP_TRY(model::lay_out_configuration(files)));
  out.component.segment_bytes = out.layout->size;
  return std::optional(std::move(out));
}

}  // namespace lockstep::server
