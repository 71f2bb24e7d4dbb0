#pragma once

// Outputs on disk, by content: DIR/ab/<sha256> and the suffix of their format. Writing one twice is writing it once.
// What is not yet whole lies in DIR/unfinished. Pool threads only, but for what says otherwise.

#include <string>
#include <string_view>

#include "base/result.h"
#include "env/real/fd.h"

namespace lockstep::real {

class BlobStore {
 public:
  explicit BlobStore(std::string folder) : folder_(std::move(folder)) {}

  /// Removes what a process that is gone was killed over. Before the first put, on any thread. unavailable names the
  /// path and reason.
  Status sweep() const;

  /// Durable when it returns, whoever wrote it: synced file, renamed into place, synced folder. unavailable, or
  /// resource_exhausted of a full disk, names the path and reason.
  /// The suffix tells people and their programs what the file is; bytes of no known format have none.
  Status put(std::string_view bytes, const std::string& sha256) const;
  /// not_found, or data_loss when the bytes are not the content the name promises.
  Result<std::string> get(const std::string& sha256) const;
  /// Nothing of that content is left when it returns, on the disk neither, also when there was nothing. unavailable
  /// names the path and reason. One sync of a folder: it may run on the loop's thread.
  Status remove(const std::string& sha256) const;
  /// suffix: of base/image_header.h
  std::string path_of(const std::string& sha256, std::string_view suffix) const;

 private:
  std::string unfinished() const { return folder_ + "/unfinished"; }

  std::string folder_;
};

/// Writes a file so that it is either all there or not at all. It is made in the folder `making`, which is on the same
/// file system; who is killed leaves it there.
Status write_file(const std::string& path, std::string_view bytes, const std::string& making);
/// At most `limit` bytes; too_large otherwise.
Result<std::string> read_file(const std::string& path, std::size_t limit);

}  // namespace lockstep::real
