#pragma once

// Puts frames together from bytes as a stream gives them: any number of bytes at a time, a frame in many pieces or
// many frames in one. A frame whose last byte never came is never given.

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "env/frame.h"

namespace lockstep {

class FrameReader {
 public:
  void take(std::string_view bytes) { buffer_.append(bytes); }

  /// The header of the frame that has begun; nothing while bytes of it are missing. An error is for good: what comes
  /// after a broken header cannot be told from noise, and the link must be closed.
  Result<std::optional<FrameHeader>> header() const;
  /// The next whole frame, once.
  Result<std::optional<Frame>> next();

  bool empty() const { return buffer_.empty(); }

 private:
  std::string buffer_;
};

}  // namespace lockstep
