#pragma once

// Room on a disk, and a file that keeps some of it for the day when there is none.

#include <string>

#include "base/result.h"
#include "base/units.h"

namespace lockstep::real {

/// What this user may still write below `folder`; unavailable when the system does not say.
Result<Bytes> free_on_disk(const std::string& folder);

/// While the file is there, its bytes are nobody else's; giving it up makes room at once. Any thread.
class DiskReserve {
 public:
  /// Nothing is done to the file yet: it may be there from before.
  DiskReserve(std::string path, Bytes size);

  bool held() const;
  /// resource_exhausted when there is no room for it, unavailable when the disk cannot be written.
  Status take();
  /// False when there was none, or it cannot be removed.
  bool give_up();
  Bytes size() const { return size_; }

 private:
  std::string path_;
  Bytes size_;
};

}  // namespace lockstep::real
