#include "env/real/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/digest.h"
#include "base/image_header.h"
#include "base/text.h"

namespace lockstep::real {

namespace {

Error broken(std::string_view what, const std::string& path) {
  const ErrorCode code = errno == ENOSPC || errno == EDQUOT ? ErrorCode::resource_exhausted : ErrorCode::unavailable;
  return fail(code, cat("cannot ", what, " ", path, ": ", std::strerror(errno)));
}

Status sync_folder_of(const std::string& path) {
  const Fd folder(::open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return broken("sync the folder of", path);
  return {};
}

}  // namespace

Status write_file(const std::string& path, std::string_view bytes, const std::string& making) {
  std::string temporary = cat(making, "/XXXXXX");
  Fd file(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!file) return broken("create", temporary);
  const auto give_up = [&](std::string_view what) {
    const Error error = broken(what, path);
    ::unlink(temporary.c_str());
    return error;
  };
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t wrote = ::write(file.get(), bytes.data() + at, bytes.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return give_up("write");
    at += static_cast<std::size_t>(wrote);
  }
  if (::fchmod(file.get(), 0644) != 0 || ::fsync(file.get()) != 0) return give_up("sync");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up("rename to");
  return sync_folder_of(path);
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    return fail(errno == ENOENT ? ErrorCode::not_found : ErrorCode::unavailable,
                cat("cannot open ", path, ": ", std::strerror(errno)));
  }
  std::string out;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return broken("read", path);
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
    if (out.size() > limit) return fail(ErrorCode::too_large, cat(path, " has more than ", limit, " bytes"));
  }
}

std::string BlobStore::path_of(const std::string& sha256, std::string_view suffix) const {
  LOCKSTEP_CHECK(is_sha256_hex(sha256));
  return cat(folder_, "/", sha256.substr(0, 2), "/", sha256, suffix);
}

Status BlobStore::put(std::string_view bytes, const std::string& sha256) const {
  const ImageFormat* const format = image_format_of(bytes);
  const std::string path = path_of(sha256, format == nullptr ? "" : format->suffix);
  std::error_code error;
  // Who stored it may still be about to sync the folder, or was killed before it did: its bytes are on disk, its name
  // perhaps not.
  if (std::filesystem::exists(path, error)) return sync_folder_of(path);
  const std::string folder = std::filesystem::path(path).parent_path();
  const bool is_new = std::filesystem::create_directories(folder, error);
  if (!error) std::filesystem::create_directories(unfinished(), error);
  if (error) {
    errno = error.value();
    return broken("create the folder of", path);
  }
  if (is_new) LOCKSTEP_TRY_STATUS(sync_folder_of(folder));
  return write_file(path, bytes, unfinished());
}

Status BlobStore::sweep() const {
  std::error_code error;
  std::filesystem::remove_all(unfinished(), error);
  if (!error) return {};
  errno = error.value();
  return broken("clear", unfinished());
}

Status BlobStore::remove(const std::string& sha256) const {
  const auto unlink_if_there = [&](std::string_view suffix) -> Status {
    const std::string path = path_of(sha256, suffix);
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return broken("remove", path);
  };
  for (const ImageFormat& format : image_formats) LOCKSTEP_TRY_STATUS(unlink_if_there(format.suffix));
  LOCKSTEP_TRY_STATUS(unlink_if_there(""));
  // Also when nothing was there: an earlier attempt may have ended before its folder was synced.
  const std::string path = path_of(sha256, "");
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::path(path).parent_path(), error)) return {};
  return sync_folder_of(path);
}

Result<std::string> BlobStore::get(const std::string& sha256) const {
  const auto read = [&]() -> Result<std::string> {
    for (const ImageFormat& format : image_formats) {
      auto found = read_file(path_of(sha256, format.suffix), 1u << 30);
      if (found || found.error().code != ErrorCode::not_found) return found;
    }
    return read_file(path_of(sha256, ""), 1u << 30);
  };
  std::string bytes = LOCKSTEP_TRY(read());
  if (sha256_hex(bytes) != sha256) {
    return fail(ErrorCode::data_loss, cat("output ", sha256, " does not hold the bytes its name promises"));
  }
  return bytes;
}

}  // namespace lockstep::real
