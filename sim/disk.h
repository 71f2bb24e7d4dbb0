#pragma once

// The simulated disk: files whose writes last only after a sync, and what can go wrong with them. A process sees what
// it wrote; a power cut leaves any part of what was not synced, sector by sector. sim/disk_vfs.h puts SQLite on it.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/random.h"

namespace lockstep::sim {

enum class Io { done, failed, full };

enum class DiskFault {
  power_cut,      // in the middle of the call
  error,          // one call fails
  error_lasting,  // that call and all after it, until repair()
  sync_dropped,   // the next sync fails; what was not written is no longer seen either
  sync_kept,      // the next sync fails; what was not written is seen until the power goes, and never written
  full,           // no file grows, until repair()
  lying_sync,     // syncs succeed and do nothing, until repair() or a power cut
};

/// Of what was not synced, after a power cut.
enum class Left { some, all, nothing };

class Disk {
 public:
  /// Called with the name of each fault that is met (sim/faults.h).
  using Told = std::function<void(const std::string&)>;

  struct Write {
    std::size_t at = 0;
    std::string bytes;
    bool truncates = false;  // to `at`
  };
  struct File {
    std::string seen;            // what a read gives
    std::string durable;         // what is on the platter
    std::vector<Write> pending;  // since the last sync, in order
    bool log = false;            // of a database
    // While a sync lies, `durable` is what an honest disk would hold; this is what there really is.
    bool lied_to = false;
    std::string truth;
    std::vector<Write> lied;
  };

  Disk(Random random, Told told);

  // ---- what a process does; each call may meet a planned fault

  /// nullptr when it is not there and is not to be created, or when the call failed.
  std::shared_ptr<File> open(const std::string& name, bool create);
  Io remove(const std::string& name, bool sync_folder);
  Io exists(const std::string& name, bool& out);
  Io read(const File& file, std::size_t at, std::size_t size, std::string_view& out);
  Io write(File& file, std::size_t at, std::string_view bytes);
  Io truncate(File& file, std::size_t size);
  Io sync(File& file, bool folder);

  /// Which life of the power and of the process a handle belongs to; handles of an earlier one do nothing.
  std::uint64_t life() const { return life_; }

  // ---- what the world does

  /// Strikes at the call that comes after `calls` others, or at the first after it that it suits.
  void plan(DiskFault fault, int calls);
  /// Asked at the end of each call that changes something, a sync before it has done so: whether the power fails there,
  /// and what that leaves.
  void cut_power_when(std::function<std::optional<Left>()> here) { cut_here_ = std::move(here); }
  /// The process ends, and the system keeps what it wrote.
  void kill();
  /// The power fails; no call succeeds before power_on().
  void cut_power(Left what = Left::some);
  void power_on() { off_ = false; }
  bool is_off() const { return off_; }
  /// Everything that was planned or lasts is over.
  void repair();

  /// Whether a call has failed since this was asked last.
  bool take_failed() { return std::exchange(failed_, false); }
  bool take_sync_failed() { return std::exchange(sync_failed_, false); }

  bool lies() const { return lies_; }
  void stop_lying();

  /// What a power cut would leave now on a disk whose syncs lied. Nothing of it is shared with this one.
  Disk left_by_lies();
  /// A disk with the same files.
  Disk copy();
  /// A file, to be damaged; nullptr when it is not there.
  File* file(const std::string& name);

  std::size_t sector() const { return sector_; }
  Random& random() { return random_; }

 private:
  struct Planned {
    DiskFault fault;
    int calls;
  };
  enum class Call { writes, other };

  bool take(DiskFault fault);
  Io meet(Call call);
  Io end_of_call(bool changes = true);
  Io fail();
  std::map<std::string, std::shared_ptr<File>> some_names();
  /// Any part of the writes, sector by sector, goes into the image.
  void leave_some(std::string& image, const std::vector<Write>& writes);
  void tell(const char* name) const {
    if (told_) told_(name);
  }

  Random random_;
  Told told_;
  std::size_t sector_;
  std::map<std::string, std::shared_ptr<File>> names_;
  std::map<std::string, std::shared_ptr<File>> durable_names_;
  std::vector<Planned> planned_;
  std::uint64_t life_ = 1;
  std::function<std::optional<Left>()> cut_here_;
  bool off_ = false;
  bool broken_ = false;
  bool full_ = false;
  bool lies_ = false;
  bool failed_ = false;
  bool sync_failed_ = false;
};

}  // namespace lockstep::sim
