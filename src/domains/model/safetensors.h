#pragma once

// Reading a safetensors header, bounds-checked, and laying its tensors out in a cache segment (design §8).
// File: u64 header length, JSON header, data. Segment: the same shape, but every tensor at a multiple of 256 bytes
// and with absolute offsets, so that one block copy gives views a GPU likes. docs/formats/segment.md.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "domains/model/dtype.h"

namespace lockstep::model {

inline constexpr std::uint64_t safetensors_header_max = 100'000'000;  // bytes, as in the reference reader
inline constexpr std::uint64_t segment_alignment = 256;

struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;  // in the file, absolute
  std::uint64_t bytes = 0;
};

/// The header length from the first 8 bytes of a file of `file_size` bytes; data_loss when it cannot be.
Result<std::uint64_t> safetensors_header_length(std::span<const std::uint8_t> first_eight, std::uint64_t file_size);

/// The tensors of a file, in file order. Checked: JSON, known dtypes, shape times width equals the range, ranges
/// contiguous without hole or overlap and exactly as long as the file. data_loss names the tensor and the numbers.
Result<std::vector<Tensor>> parse_safetensors_header(std::string_view json, std::uint64_t file_size);

/// The texts of a header's `__metadata__`; empty when there is none, or it is no object of texts.
std::map<std::string, std::string> safetensors_metadata(std::string_view json);

/// One tensor of a file and where it goes in the segment. It is converted on the way when the two dtypes differ.
struct CopyPiece {
  std::uint32_t file = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t bytes = 0;  // in the file
  std::string dtype;        // in the file
  std::string dtype_in_cache;
  std::uint64_t bytes_in_cache = 0;
};

struct SegmentLayout {
  std::vector<CopyPiece> pieces;  // ascending in (file, from)
  Bytes size;                     // of the whole segment, header included
  std::string contents_json;      // the "tensors" member of the segment header, or the "files" of a configuration
};

/// `at`, moved up to where the next piece of a segment may begin.
std::uint64_t segment_aligned(std::uint64_t at);
/// Where the first piece of a segment begins whose contents_json has at most `bytes`.
std::uint64_t first_piece_at(std::uint64_t bytes);

/// Where each tensor of a component's files goes. The header text itself is made by segment_header(), of fixed
/// length for a layout, so that the digest can be filled in when it is known.
Result<SegmentLayout> lay_out(const std::vector<std::vector<Tensor>>& files, CacheDtype dtype = CacheDtype::as_is);

/// The bytes before the first tensor: u64 length and space-padded JSON. `sha256` has 64 digits.
std::string segment_header(const SegmentLayout& layout, std::string_view model, std::string_view component,
                           std::string_view sha256);

}  // namespace lockstep::model
