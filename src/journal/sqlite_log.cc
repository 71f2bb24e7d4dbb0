#include "journal/sqlite_log.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

namespace {

using Offset = sqlite3_int64;

constexpr Offset block = 4096;              // bytes; no disk of today has larger ones
constexpr Offset gathered_max = 256 << 10;  // bytes
constexpr Offset plain_max = 64 << 10;      // bytes; SQLite's files take less than 128 KiB at a time

constexpr Offset whole_blocks(Offset bytes) { return (bytes + block - 1) / block * block; }

int error_of(int number) {
  return number == ENOSPC || number == EDQUOT || number == EFBIG ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

struct FreeDeleter {
  void operator()(void* at) const { std::free(at); }
};

/// The log. What is gathered lies in the file at `begin_`, a multiple of the block: first what is in it already of the
/// last block, then what is to be written. Behind it, up to the end of its block, there is nothing that counts: frames
/// are written one behind the other, and those of an earlier round are void once the log has begun anew.
class Log {
 public:
  Log(sqlite3_file* plain, const char* path, bool direct)
      : plain_(plain), direct_(direct ? ::open(path, O_WRONLY | O_DIRECT | O_CLOEXEC) : -1) {
    bytes_.reset(static_cast<char*>(std::aligned_alloc(block, gathered_max)));
    LOCKSTEP_CHECK(bytes_ != nullptr);
  }
  ~Log() {
    if (direct_ >= 0) ::close(direct_);
  }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  int read(void* to, int size, Offset at) {
    if (overlaps(at, size)) {
      if (const int failed = write_out(); failed != SQLITE_OK) return failed;
    }
    return plain_->pMethods->xRead(plain_, to, size, at);
  }

  int write(const char* from, int size, Offset at) {
    if (at == 0) {  // the log begins, or begins anew
      if (const int failed = write_out(); failed != SQLITE_OK) return failed;
      begin_ = end_ = written_ = 0;
      follows_ = true;
    }
    if (!has_room(size, at)) {
      if (const int failed = write_out(); failed != SQLITE_OK) return failed;
    }
    if (!follows_ || at < begin_ || at > end_ || !has_room(size, at)) {
      // A frame that is written a second time in one transaction, or the zeros behind all that counts.
      if (overlaps(at, size)) {
        if (const int failed = forget(); failed != SQLITE_OK) return failed;
      }
      return write_plain(from, size, at);
    }
    std::memcpy(bytes_.get() + (at - begin_), from, static_cast<std::size_t>(size));
    written_ = std::min(written_, at);
    end_ = std::max(end_, at + size);
    return SQLITE_OK;
  }

  int sync(int flags) {
    if (!unsynced_ && direct_ >= 0 && written_ != end_) return write_blocks(RWF_DSYNC);
    if (const int failed = write_out(); failed != SQLITE_OK) return failed;
    unsynced_ = false;
    return plain_->pMethods->xSync(plain_, flags);
  }

  /// Everything is in the file; the last block stays here, for what comes next.
  int write_out() {
    if (written_ == end_) return SQLITE_OK;
    unsynced_ = true;
    return direct_ >= 0 ? write_blocks(0) : write_gathered();
  }

  int size(Offset* out) {
    const int failed = plain_->pMethods->xFileSize(plain_, out);
    *out = std::max(*out, end_);
    return failed;
  }
  int truncate(Offset size) {
    if (const int failed = forget(); failed != SQLITE_OK) return failed;
    unsynced_ = true;
    return plain_->pMethods->xTruncate(plain_, size);
  }

  sqlite3_file* plain() const { return plain_; }

 private:
  /// Of what is gathered, and of what a block of it is filled up with.
  bool overlaps(Offset at, int size) const { return at < begin_ + whole_blocks(end_ - begin_) && at + size > begin_; }
  bool has_room(int size, Offset at) const { return at + size <= begin_ + gathered_max; }

  /// What comes next is not gathered until the log begins anew.
  int forget() {
    const int failed = write_out();
    begin_ = end_ = written_ = 0;
    follows_ = false;
    return failed;
  }

  void is_written() {
    written_ = end_;
    const Offset kept = (end_ - begin_) % block;
    std::memmove(bytes_.get(), bytes_.get() + (end_ - begin_ - kept), static_cast<std::size_t>(kept));
    begin_ = end_ - kept;
  }

  int write_plain(const void* from, int size, Offset at) {
    unsynced_ = true;
    return plain_->pMethods->xWrite(plain_, from, size, at);
  }

  int write_gathered() {
    while (written_ < end_) {
      const Offset size = std::min(end_ - written_, plain_max);
      const int failed = write_plain(bytes_.get() + (written_ - begin_), static_cast<int>(size), written_);
      if (failed != SQLITE_OK) return failed;
      written_ += size;
    }
    is_written();
    return SQLITE_OK;
  }

  /// With RWF_DSYNC, synced.
  int write_blocks(int flags) {
    const auto used = static_cast<std::size_t>(end_ - begin_);
    const iovec all{bytes_.get(), static_cast<std::size_t>(whole_blocks(end_ - begin_))};
    std::memset(bytes_.get() + used, 0, all.iov_len - used);
    const ssize_t written = ::pwritev2(direct_, &all, 1, begin_, flags);
    if (written == static_cast<ssize_t>(all.iov_len)) {
      is_written();
      return SQLITE_OK;
    }
    if (written < 0 && errno != EINVAL && errno != EOPNOTSUPP) return error_of(errno);
    // This file system knows it not; or there was room for a part of it.
    ::close(direct_);
    direct_ = -1;
    const int failed = write_gathered();
    return failed == SQLITE_OK && flags != 0 ? plain_->pMethods->xSync(plain_, SQLITE_SYNC_NORMAL) : failed;
  }

  sqlite3_file* const plain_;
  int direct_;
  std::unique_ptr<char, FreeDeleter> bytes_;
  bool follows_ = false;  // it was there when the log began
  Offset begin_ = 0;
  Offset end_ = 0;        // of what is gathered
  Offset written_ = 0;    // up to here it is in the file
  bool unsynced_ = true;  // something went another way than with its sync; a new file's name is not on disk either
};

/// What SQLite allocates for a file: ours, and the plain one behind it.
struct LogFile {
  sqlite3_file base;
  Log* log;
};

constexpr int own_size = (sizeof(LogFile) + alignof(std::max_align_t) - 1) / alignof(std::max_align_t) *
                         static_cast<int>(alignof(std::max_align_t));

Log& log_of(sqlite3_file* file) { return *reinterpret_cast<LogFile*>(file)->log; }
sqlite3_file* plain_of(sqlite3_file* file) { return log_of(file).plain(); }

int close_log(sqlite3_file* file) {
  Log* const log = &log_of(file);
  const int failed = log->write_out();
  sqlite3_file* const plain = log->plain();
  delete log;
  const int closed = plain->pMethods->xClose(plain);
  return failed == SQLITE_OK ? closed : failed;
}

constexpr sqlite3_io_methods log_methods = {
    .iVersion = 1,  // nobody maps the log
    .xClose = close_log,
    .xRead = [](sqlite3_file* f, void* to, int size, Offset at) { return log_of(f).read(to, size, at); },
    .xWrite = [](sqlite3_file* f, const void* from, int size,
                 Offset at) { return log_of(f).write(static_cast<const char*>(from), size, at); },
    .xTruncate = [](sqlite3_file* f, Offset size) { return log_of(f).truncate(size); },
    .xSync = [](sqlite3_file* f, int flags) { return log_of(f).sync(flags); },
    .xFileSize = [](sqlite3_file* f, Offset* out) { return log_of(f).size(out); },
    .xLock = [](sqlite3_file* f, int level) { return plain_of(f)->pMethods->xLock(plain_of(f), level); },
    .xUnlock = [](sqlite3_file* f, int level) { return plain_of(f)->pMethods->xUnlock(plain_of(f), level); },
    .xCheckReservedLock = [](sqlite3_file* f,
                             int* out) { return plain_of(f)->pMethods->xCheckReservedLock(plain_of(f), out); },
    .xFileControl = [](sqlite3_file* f, int what,
                       void* at) { return plain_of(f)->pMethods->xFileControl(plain_of(f), what, at); },
    .xSectorSize = [](sqlite3_file* f) { return plain_of(f)->pMethods->xSectorSize(plain_of(f)); },
    .xDeviceCharacteristics =
        [](sqlite3_file* f) { return plain_of(f)->pMethods->xDeviceCharacteristics(plain_of(f)); },
};

}  // namespace

struct LogFileSystem::Vfs : sqlite3_vfs {
  sqlite3_vfs* below;
  std::string own_name;
  bool direct;

  static int open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* flags_out) {
    const Vfs& self = *static_cast<Vfs*>(vfs);
    if ((flags & SQLITE_OPEN_WAL) == 0) return self.below->xOpen(self.below, path, file, flags, flags_out);
    file->pMethods = nullptr;
    auto* const plain = reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + own_size);
    const int failed = self.below->xOpen(self.below, path, plain, flags, flags_out);
    if (failed != SQLITE_OK) {
      if (plain->pMethods != nullptr) plain->pMethods->xClose(plain);
      return failed;
    }
    reinterpret_cast<LogFile*>(file)->log = new Log(plain, path, self.direct);
    file->pMethods = &log_methods;
    return SQLITE_OK;
  }
};

LogFileSystem::LogFileSystem(const char* below, bool direct) {
  sqlite3_vfs* const found = sqlite3_vfs_find(below);
  if (found == nullptr) return;
  vfs_ = std::make_unique<Vfs>();
  static_cast<sqlite3_vfs&>(*vfs_) = *found;  // everything but opening is done by the one below
  vfs_->below = found;
  vfs_->direct = direct;
  static std::atomic<std::uint64_t> made{0};
  vfs_->own_name = cat("lockstep-log-", ++made);
  vfs_->zName = vfs_->own_name.c_str();
  vfs_->szOsFile = own_size + found->szOsFile;
  vfs_->xOpen = Vfs::open;
  sqlite3_vfs_register(vfs_.get(), 0);
}

LogFileSystem::~LogFileSystem() {
  if (vfs_) sqlite3_vfs_unregister(vfs_.get());
}

const char* LogFileSystem::name() const { return vfs_ ? vfs_->zName : nullptr; }

}  // namespace lockstep
