#include "env/real/disk_space.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "env/real/fd.h"

namespace lockstep::real {

Result<Bytes> free_on_disk(const std::string& folder) {
  struct statvfs facts{};
  if (::statvfs(folder.c_str(), &facts) != 0) {
    return fail(ErrorCode::unavailable, cat("cannot ask how full the disk of ", folder, " is: ", std::strerror(errno)));
  }
  return Bytes{facts.f_bavail * facts.f_frsize};
}

DiskReserve::DiskReserve(std::string path, Bytes size) : path_(std::move(path)), size_(size) {}

bool DiskReserve::held() const {
  struct stat facts{};
  return size_.value > 0 && ::stat(path_.c_str(), &facts) == 0 &&
         static_cast<std::uint64_t>(facts.st_size) >= size_.value;
}

Status DiskReserve::take() {
  if (size_.value == 0 || held()) return {};
  const Fd file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const int failed = file ? ::posix_fallocate(file.get(), 0, static_cast<off_t>(size_.value)) : errno;
  if (failed == 0) return {};
  ::unlink(path_.c_str());  // a part of it would only be missed elsewhere
  const bool full = failed == ENOSPC || failed == EDQUOT || failed == EFBIG;
  return fail(full ? ErrorCode::resource_exhausted : ErrorCode::unavailable,
              cat("cannot set ", to_text(size_), " of the disk aside in ", path_, ": ", std::strerror(failed)));
}

bool DiskReserve::give_up() { return held() && ::unlink(path_.c_str()) == 0; }

}  // namespace lockstep::real
