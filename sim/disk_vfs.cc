#include "sim/disk_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::sim {

namespace {

/// An open file as SQLite holds it: memory of SQLite's, made and unmade by hand.
struct Handle {
  sqlite3_file base;
  Disk* disk;
  std::uint64_t life;
  std::shared_ptr<Disk::File> file;
  bool sync_folder;  // its name was made with it: its first sync makes the name last
};

Handle& of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
bool stale(const Handle& handle) { return handle.life != handle.disk->life(); }

int code(Io result, int failed) {
  switch (result) {
    case Io::done: return SQLITE_OK;
    case Io::full: return SQLITE_FULL;
    case Io::failed: break;
  }
  return failed;
}

int close(sqlite3_file* file) {
  of(file).~Handle();
  return SQLITE_OK;
}

int read(sqlite3_file* file, void* out, int size, sqlite3_int64 at) {
  const Handle& handle = of(file);
  if (stale(handle)) return SQLITE_IOERR_READ;
  const auto wanted = static_cast<std::size_t>(size);
  std::string_view bytes;
  if (handle.disk->read(*handle.file, static_cast<std::size_t>(at), wanted, bytes) != Io::done) {
    return SQLITE_IOERR_READ;
  }
  std::memcpy(out, bytes.data(), bytes.size());
  if (bytes.size() == wanted) return SQLITE_OK;
  std::memset(static_cast<char*>(out) + bytes.size(), 0, wanted - bytes.size());
  return SQLITE_IOERR_SHORT_READ;
}

int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 at) {
  const Handle& handle = of(file);
  if (stale(handle)) return SQLITE_IOERR_WRITE;
  const std::string_view piece(static_cast<const char*>(bytes), static_cast<std::size_t>(size));
  return code(handle.disk->write(*handle.file, static_cast<std::size_t>(at), piece), SQLITE_IOERR_WRITE);
}

int truncate(sqlite3_file* file, sqlite3_int64 size) {
  const Handle& handle = of(file);
  if (stale(handle)) return SQLITE_IOERR_TRUNCATE;
  return code(handle.disk->truncate(*handle.file, static_cast<std::size_t>(size)), SQLITE_IOERR_TRUNCATE);
}

int sync(sqlite3_file* file, int) {
  Handle& handle = of(file);
  if (stale(handle)) return SQLITE_IOERR_FSYNC;
  const int result = code(handle.disk->sync(*handle.file, handle.sync_folder), SQLITE_IOERR_FSYNC);
  if (result == SQLITE_OK) handle.sync_folder = false;
  return result;
}

int file_size(sqlite3_file* file, sqlite3_int64* out) {
  const Handle& handle = of(file);
  if (stale(handle)) return SQLITE_IOERR_FSTAT;
  *out = static_cast<sqlite3_int64>(handle.file->seen.size());
  return SQLITE_OK;
}

// One connection, one process: nobody competes for a lock.
int lock(sqlite3_file*, int) { return SQLITE_OK; }
int check_lock(sqlite3_file*, int* out) {
  *out = 0;
  return SQLITE_OK;
}

int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file* file) { return static_cast<int>(of(file).disk->sector()); }
// As SQLite assumes of a Unix file: a write that is torn damages nothing beside it.
int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

constexpr sqlite3_io_methods methods{
    .iVersion = 1,  // no shared memory: the journal's connection is exclusive
    .xClose = close,
    .xRead = read,
    .xWrite = write,
    .xTruncate = truncate,
    .xSync = sync,
    .xFileSize = file_size,
    .xLock = lock,
    .xUnlock = lock,
    .xCheckReservedLock = check_lock,
    .xFileControl = control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = nullptr,
    .xShmLock = nullptr,
    .xShmBarrier = nullptr,
    .xShmUnmap = nullptr,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

struct Owner {
  Disk& disk;
  const Nanos& now;
};
Owner& owner(sqlite3_vfs* vfs) { return *static_cast<Owner*>(vfs->pAppData); }

int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* flags_out) {
  file->pMethods = nullptr;
  Disk& disk = owner(vfs).disk;
  std::shared_ptr<Disk::File> found;
  bool made = false;
  if (name == nullptr) {
    found = std::make_shared<Disk::File>();  // a temporary one has no name to be found by
  } else {
    bool there = false;
    if (disk.exists(name, there) != Io::done) return SQLITE_IOERR;
    made = !there;
    found = disk.open(name, (flags & SQLITE_OPEN_CREATE) != 0);
  }
  if (!found) return SQLITE_CANTOPEN;
  const bool log = (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
  new (file) Handle{{&methods}, &disk, disk.life(), std::move(found), made && log};
  if (flags_out != nullptr) *flags_out = flags;
  return SQLITE_OK;
}

int remove(sqlite3_vfs* vfs, const char* name, int sync_folder) {
  bool there = false;
  if (owner(vfs).disk.exists(name, there) != Io::done) return SQLITE_IOERR_DELETE;
  if (!there) return SQLITE_IOERR_DELETE_NOENT;
  return code(owner(vfs).disk.remove(name, sync_folder != 0), SQLITE_IOERR_DELETE);
}

int access(sqlite3_vfs* vfs, const char* name, int, int* out) {
  bool there = false;
  const Io result = owner(vfs).disk.exists(name, there);
  *out = there ? 1 : 0;
  return code(result, SQLITE_IOERR_ACCESS);
}

int full_name(sqlite3_vfs*, const char* name, int size, char* out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}

int randomness(sqlite3_vfs* vfs, int size, char* out) {
  for (int i = 0; i < size; ++i) out[i] = static_cast<char>(owner(vfs).disk.random().next());
  return size;
}

int sleep(sqlite3_vfs*, int microseconds) { return microseconds; }

int milliseconds_now(sqlite3_vfs* vfs, sqlite3_int64* out) {
  constexpr sqlite3_int64 begin = 212'000'000'000'000;  // of the simulation, in the Julian day's milliseconds
  *out = begin + owner(vfs).now / 1'000'000;
  return SQLITE_OK;
}

int days_now(sqlite3_vfs* vfs, double* out) {
  sqlite3_int64 now = 0;
  milliseconds_now(vfs, &now);
  *out = static_cast<double>(now) / 86'400'000.0;
  return SQLITE_OK;
}

int last_error(sqlite3_vfs*, int, char*) { return 0; }

}  // namespace

struct DiskVfs::Registered {
  Owner owner;
  std::string name;
  sqlite3_vfs vfs{};
};

DiskVfs::DiskVfs(Disk& disk, const Nanos& now) : registered_(new Registered{{disk, now}, ""}) {
  // Several may live at once; the address is in no byte that is written.
  registered_->name = cat("simulated-", reinterpret_cast<std::uintptr_t>(registered_.get()));
  sqlite3_vfs& vfs = registered_->vfs;
  vfs.iVersion = 2;
  vfs.szOsFile = sizeof(Handle);
  vfs.mxPathname = 100;
  vfs.zName = registered_->name.c_str();
  vfs.pAppData = &registered_->owner;
  vfs.xOpen = open;
  vfs.xDelete = remove;
  vfs.xAccess = access;
  vfs.xFullPathname = full_name;
  vfs.xRandomness = randomness;
  vfs.xSleep = sleep;
  vfs.xCurrentTime = days_now;
  vfs.xCurrentTimeInt64 = milliseconds_now;
  vfs.xGetLastError = last_error;
  LOCKSTEP_CHECK(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
  sqlite3_randomness(0, nullptr);  // it begins anew, from the default file system: this one
}

DiskVfs::~DiskVfs() {
  sqlite3_vfs_unregister(&registered_->vfs);  // the one before is the default again
  sqlite3_randomness(0, nullptr);
}

const std::string& DiskVfs::name() const { return registered_->name; }

}  // namespace lockstep::sim
