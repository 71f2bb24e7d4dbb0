#include "env/real/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/digest.h"
#include "base/text.h"

namespace lockstep::real {

Result<Fd> make_sealed(const std::string& name, Bytes size,
                       const std::function<Status(std::span<std::uint8_t>)>& fill) {
  Fd file(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return fail(ErrorCode::unavailable, cat("cannot make shared memory: ", std::strerror(errno)));
  // Allocated here, so that a full machine is an error now and not a SIGBUS in whoever touches the page first.
  if (size.value > 0 && ::posix_fallocate(file.get(), 0, static_cast<off_t>(size.value)) != 0) {
    return fail(ErrorCode::resource_exhausted, cat("no memory for ", to_text(size), " of shared memory"));
  }
  if (size.value > 0) {
    void* const at = ::mmap(nullptr, size.value, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED) return fail(ErrorCode::resource_exhausted, cat("cannot map ", to_text(size)));
    const Status filled = fill({static_cast<std::uint8_t*>(at), size.value});
    ::munmap(at, size.value);  // sealing against writes fails while a writable mapping exists
    LOCKSTEP_TRY_STATUS(filled);
  }
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return fail(ErrorCode::internal, cat("cannot seal ", name, ": ", std::strerror(errno)));
  }
  return file;
}

namespace {

constexpr int all_seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

/// A lock that belongs to the open file and not to the process, so that threads of one process can wait for each other.
int open_file_lock(int fd, int command, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  int done = 0;
  do {
    done = ::fcntl(fd, command, &lock);
  } while (done != 0 && errno == EINTR);
  return done;
}

bool is_sealed(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & all_seals) == all_seals;
}

}  // namespace

Result<FillingFile> begin_filling(const std::string& name, Bytes size) {
  Fd filler(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // The reader must be another open file, or the filler's lock would be its own.
  Fd reader(filler ? ::open(cat("/proc/self/fd/", filler.get()).c_str(), O_RDWR | O_CLOEXEC) : -1);
  if (!reader || open_file_lock(filler.get(), F_OFD_SETLK, F_WRLCK) != 0) {
    return fail(ErrorCode::unavailable, cat("cannot make shared memory: ", std::strerror(errno)));
  }
  if (size.value > 0 && ::posix_fallocate(filler.get(), 0, static_cast<off_t>(size.value)) != 0) {
    return fail(ErrorCode::resource_exhausted, cat("no memory for ", to_text(size), " of shared memory"));
  }
  return FillingFile{std::move(filler), std::move(reader)};
}

Status finish_filling(int filler) {
  if (::fcntl(filler, F_ADD_SEALS, all_seals) == 0) return {};
  return fail(ErrorCode::internal, cat("cannot seal a memory file: ", std::strerror(errno)));
}

Status wait_sealed(int reader) {
  if (!is_sealed(reader)) open_file_lock(reader, F_OFD_SETLKW, F_RDLCK);
  if (is_sealed(reader)) return {};
  return fail(ErrorCode::data_loss, "the bytes that belong to it did not arrive");
}

Result<Bytes> size_of(int fd) {
  struct stat facts{};
  if (::fstat(fd, &facts) != 0) return fail(ErrorCode::unavailable, cat("cannot stat: ", std::strerror(errno)));
  return Bytes{static_cast<std::uint64_t>(facts.st_size)};
}

std::string identity_of(int fd) {
  constexpr int wanted = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  struct stat facts{};
  if (seals < 0 || (seals & wanted) != wanted || ::fstat(fd, &facts) != 0) return {};
  return cat(facts.st_dev, ":", facts.st_ino, ":", facts.st_size, ":", facts.st_mtim.tv_sec, ".",
             facts.st_mtim.tv_nsec);
}

Result<std::string> read_verified(int fd, std::uint64_t bytes, std::string_view sha256) {
  if (bytes > read_max.value) {
    return fail(ErrorCode::too_large,
                cat("a buffer of ", bytes, " bytes was promised; at most ", read_max.value, " are read"));
  }
  if (!is_sealed(fd)) return fail(ErrorCode::data_loss, "the buffer is not sealed: its bytes may still change");
  const Bytes size = LOCKSTEP_TRY(size_of(fd));
  if (size.value != bytes) {
    return fail(ErrorCode::data_loss, cat("the buffer has ", size.value, " bytes, ", bytes, " were promised"));
  }
  std::string out(bytes, '\0');
  std::size_t at = 0;
  while (at < out.size()) {
    const ssize_t got = ::pread(fd, out.data() + at, out.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail(ErrorCode::data_loss, "the buffer cannot be read");
    at += static_cast<std::size_t>(got);
  }
  const std::string digest = sha256_hex(out);
  if (digest != sha256) {
    return fail(ErrorCode::data_loss, cat("the buffer has digest ", digest, ", ", shortened(sha256), " was promised"));
  }
  return out;
}

}  // namespace lockstep::real
