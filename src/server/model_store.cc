#include "server/model_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/text.h"
#include "env/real/fd.h"
#include "server/model_files.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

Error failed(std::string_view what, const fs::path& path, const std::error_code& error) {
  const bool full = error == std::errc::no_space_on_device || error.value() == EDQUOT;
  return fail(full ? ErrorCode::resource_exhausted : ErrorCode::unavailable,
              cat("cannot ", what, " ", path.string(), ": ", error.message()));
}

Status sync_path(const fs::path& path) {
  const real::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file && ::fsync(file.get()) == 0) return {};
  return failed("sync", path, std::error_code(errno, std::generic_category()));
}

bool is_pickle_name(const fs::path& path) {
  const std::string end = path.extension().string();
  return end == ".bin" || end == ".pt" || end == ".pth" || end == ".ckpt" || end == ".pkl";
}

Status copy_one(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, error);  // follows a link to a file
  if (error) return failed("copy", from, error);
  return sync_path(to);
}

/// Links to folders are not followed: they could lead anywhere, and around in a circle.
Status copy_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directory(to, error);
  if (error) return failed("make", to, error);
  auto at = fs::recursive_directory_iterator(from, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    std::error_code ignored;
    const fs::path target = to / fs::relative(at->path(), from, ignored);
    if (at->is_directory(ignored) && !at->is_symlink(ignored)) {
      fs::create_directory(target, ignored);
    } else if (at->is_regular_file(ignored) && !is_pickle_name(at->path())) {
      LOCKSTEP_TRY_STATUS(copy_one(at->path(), target));
    }
  }
  if (error) return failed("read", from, error);
  return {};
}

bool is_within(const fs::path& inner, const fs::path& outer) {
  const fs::path relative = inner.lexically_relative(outer);
  return !relative.empty() && *relative.begin() != "..";
}

fs::path sidecar_of(const fs::path& file) { return file.parent_path() / cat(file.stem().string(), ".lockstep.json"); }

}  // namespace

Status add_files(const std::string& models_dir, const std::string& path, const std::string& name, bool link) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorCode::invalid_argument, cat("path is \"", shortened(path, 200), "\"; ", why), "/path");
  };
  if (!fs::path(path).is_absolute()) return refuse("it must be absolute");
  if (!is_plain_name(name)) {
    return fail(
        ErrorCode::invalid_argument,
        cat("name is \"", shortened(name), "\"; it must be 1 to 128 of a-z A-Z 0-9 . _ - and not begin with a dot"),
        "/name");
  }
  std::error_code error;
  const fs::path source = fs::canonical(path, error);
  if (error)
    return fail(ErrorCode::not_found, cat("cannot find ", shortened(path, 200), ": ", error.message()), "/path");
  fs::create_directories(models_dir, error);
  const fs::path folder = fs::canonical(models_dir, error);
  if (error) return failed("use", models_dir, error);
  if (is_within(source, folder) || is_within(folder, source)) return refuse("it must lie outside the models folder");
  const bool is_folder = fs::is_directory(source, error);
  if (!is_folder && (!fs::is_regular_file(source, error) || source.extension() != ".safetensors")) {
    return refuse("it must be a folder or a .safetensors file");
  }
  const in::ScannedModel scanned = scan_model(source.string(), is_folder ? name : source.stem().string());
  if (scanned.model.availability == model::Availability::broken) {
    return refuse(cat("it cannot be used: ", scanned.model.reason));
  }
  const fs::path target = folder / (is_folder ? name : cat(name, ".safetensors"));
  for (const fs::path& each : {folder / name, folder / cat(name, ".safetensors")}) {
    if (fs::symlink_status(each, error).type() != fs::file_type::not_found) {
      return fail(ErrorCode::invalid_argument, cat(each.string(), " exists; remove it, or choose another name"),
                  "/name");
    }
  }
  const fs::path staging = folder / cat(".", name, ".adding");
  fs::remove_all(staging, error);  // of an add that a crash cut short
  Status done;
  if (link) {
    fs::create_symlink(source, staging, error);
    if (error) done = failed("link", staging, error);
  } else {
    done = is_folder ? copy_folder(source, staging) : copy_one(source, staging);
  }
  if (done && !is_folder && fs::exists(sidecar_of(source), error))
    done = copy_one(sidecar_of(source), sidecar_of(target));
  if (done) {
    fs::rename(staging, target, error);
    if (error) done = failed("place", target, error);
  }
  if (done) done = sync_path(folder);
  if (!done) fs::remove_all(staging, error);
  return done;
}

Status remove_files(const std::string& models_dir, const std::string& path) {
  std::error_code error;
  const fs::path folder = fs::absolute(models_dir, error);
  const fs::path target(path);
  if (target.parent_path() != folder && target.parent_path() != fs::canonical(models_dir, error)) {
    return fail(ErrorCode::invalid_argument, cat(path, " is not in the models folder ", folder.string()));
  }
  const fs::path away = target.parent_path() / cat(".", target.filename().string(), ".removing");
  fs::remove_all(away, error);
  fs::rename(target, away, error);  // gone at once, however long its deletion takes
  if (error) return failed("remove", target, error);
  if (target.extension() == ".safetensors") {
    std::error_code ignored;
    fs::remove(sidecar_of(target), ignored);
  }
  LOCKSTEP_TRY_STATUS(sync_path(target.parent_path()));
  fs::remove_all(away, error);  // of a link only the link
  if (error) return failed("delete", away, error);
  return {};
}

}  // namespace lockstep::server
