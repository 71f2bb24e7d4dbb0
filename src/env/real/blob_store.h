#pragma once

// Outputs on disk, by content: DIR/ab/<sha256> and the suffix of their format. Writing one twice is writing it once.
// Pool threads only.

#include <string>
#include <string_view>

#include "base/result.h"
#include "env/real/fd.h"

namespace lockstep::real {

class BlobStore {
 public:
  explicit BlobStore(std::string folder) : folder_(std::move(folder)) {}

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
  std::string folder_;
};

/// Writes a file so that it is either all there or not at all.
Status write_file(const std::string& path, std::string_view bytes);
/// At most `limit` bytes; too_large otherwise.
Result<std::string> read_file(const std::string& path, std::size_t limit);

}  // namespace lockstep::real
