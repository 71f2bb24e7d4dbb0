#include "domains/model/safetensors.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/text.h"
#include "events/json_read.h"

namespace lockstep::model {

namespace {

constexpr std::array<std::pair<std::string_view, std::uint64_t>, 15> dtypes{{
    {"BOOL", 1},
    {"U8", 1},
    {"I8", 1},
    {"F8_E4M3", 1},
    {"F8_E5M2", 1},
    {"U16", 2},
    {"I16", 2},
    {"F16", 2},
    {"BF16", 2},
    {"U32", 4},
    {"I32", 4},
    {"F32", 4},
    {"U64", 8},
    {"I64", 8},
    {"F64", 8},
}};

// Room for `{"model":…,"component":…,"sha256":…,"tensors":` around the contents: two plain names of at most 128 bytes,
// a digest and the keys. The header is padded to it, so that its length does not depend on the digest.
constexpr std::uint64_t header_slack = 512;

struct TensorEntry {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> data_offsets;
};
BOOST_DESCRIBE_STRUCT(TensorEntry, (), (dtype, shape, data_offsets))

struct SegmentTensor {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t offset;
  std::uint64_t bytes;
};
BOOST_DESCRIBE_STRUCT(SegmentTensor, (), (dtype, shape, offset, bytes))

}  // namespace

std::uint64_t segment_aligned(std::uint64_t at) {
  return (at + segment_alignment - 1) / segment_alignment * segment_alignment;
}

std::uint64_t first_piece_at(std::uint64_t bytes) { return segment_aligned(8 + header_slack + bytes); }

Result<std::uint64_t> safetensors_header_length(std::span<const std::uint8_t> first_eight, std::uint64_t file_size) {
  if (file_size < 8 || first_eight.size() < 8) {
    return fail(ErrorCode::data_loss, cat("the file has ", file_size, " bytes; a safetensors file begins with 8"));
  }
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | first_eight[static_cast<std::size_t>(i)];
  if (length > safetensors_header_max) {
    return fail(ErrorCode::data_loss,
                cat("the header claims ", length, " bytes; the limit is ", safetensors_header_max));
  }
  if (length > file_size - 8) {
    return fail(ErrorCode::data_loss,
                cat("the header claims ", length, " bytes, but the file has ", file_size, ": it is cut short"));
  }
  return length;
}

Result<std::vector<Tensor>> parse_safetensors_header(std::string_view text, std::uint64_t file_size) {
  const std::uint64_t data_begin = 8 + text.size();
  LOCKSTEP_CHECK(data_begin <= file_size);
  const std::uint64_t data_size = file_size - data_begin;
  json::Reader in(text, {.size_max = safetensors_header_max, .depth_max = 4});
  std::vector<Tensor> tensors;
  const auto refuse = [](std::string message) { return fail(ErrorCode::data_loss, std::move(message)); };
  std::map<std::string, bool> seen;
  std::string_view key;
  std::string name;
  if (!in.open_object()) return refuse(cat("the header is not JSON: ", in.error().message));
  while (in.next_key(key)) {
    name = key;
    if (!seen.try_emplace(name, true).second) return refuse(cat("tensor \"", shortened(name), "\" stands twice"));
    if (name == "__metadata__") {
      if (!in.skip()) break;
      continue;
    }
    TensorEntry entry;
    if (!json::read(in, entry)) break;
    const auto dtype = std::ranges::find(dtypes, entry.dtype, &std::pair<std::string_view, std::uint64_t>::first);
    if (dtype == dtypes.end()) {
      return refuse(cat("tensor \"", shortened(name), "\" has the unknown dtype \"", shortened(entry.dtype), "\""));
    }
    if (entry.data_offsets.size() != 2 || entry.data_offsets[0] > entry.data_offsets[1]) {
      return refuse(cat("tensor \"", shortened(name), "\" has no valid data_offsets"));
    }
    const auto [begin, end] = std::pair(entry.data_offsets[0], entry.data_offsets[1]);
    if (end > data_size) {
      return refuse(cat("tensor \"", shortened(name), "\" ends at byte ", data_begin + end, ", but the file has ",
                        file_size, ": it is cut short"));
    }
    std::uint64_t bytes = dtype->second;
    for (const std::uint64_t extent : entry.shape) {
      if (__builtin_mul_overflow(bytes, extent, &bytes)) {
        return refuse(cat("tensor \"", shortened(name), "\" has a shape that overflows"));
      }
    }
    if (bytes != end - begin) {
      return refuse(cat("tensor \"", shortened(name), "\" needs ", bytes, " bytes for its shape, but its range has ",
                        end - begin));
    }
    tensors.push_back({name, entry.dtype, std::move(entry.shape), data_begin + begin, bytes});
  }
  if (in.failed() || !in.end_of_text()) {
    return refuse(cat("the header is not valid at ", in.error().pointer, ": ", in.error().message));
  }
  std::ranges::stable_sort(tensors, {}, [](const Tensor& t) { return std::pair(t.begin, t.bytes); });
  std::uint64_t at = data_begin;
  for (const Tensor& tensor : tensors) {
    if (tensor.begin != at) {
      return refuse(cat("tensor \"", shortened(tensor.name), "\" begins at byte ", tensor.begin, ", expected ", at,
                        ": ranges overlap or leave a hole"));
    }
    at += tensor.bytes;
  }
  if (at != file_size) {
    return refuse(cat("the tensors end at byte ", at, ", but the file has ", file_size));
  }
  return tensors;
}

std::map<std::string, std::string> safetensors_metadata(std::string_view text) {
  json::Reader in(text, {.size_max = safetensors_header_max, .depth_max = 4});
  std::string_view key;
  if (!in.open_object()) return {};
  while (in.next_key(key)) {
    if (key == "__metadata__") {
      std::map<std::string, std::string> out;
      return json::read(in, out) ? out : std::map<std::string, std::string>{};
    }
    if (!in.skip()) break;
  }
  return {};
}

Result<SegmentLayout> lay_out(const std::vector<std::vector<Tensor>>& files, CacheDtype dtype) {
  // Offsets stand in the header, so the header's length must be known first: offsets relative to the first tensor
  // would need a second rule in every reader. Lengths are bounded by writing the widest offset (20 digits).
  std::uint64_t json_bound = 0;
  std::map<std::string, bool> names;
  for (const auto& file : files) {
    for (const Tensor& tensor : file) {
      if (!names.try_emplace(tensor.name, true).second) {
        return fail(ErrorCode::data_loss, cat("tensor \"", shortened(tensor.name), "\" stands in two files"));
      }
      std::string entry;
      json::write_string(entry, tensor.name);
      json::write(entry, SegmentTensor{tensor.dtype, tensor.shape, ~0ULL, ~0ULL});
      json_bound += entry.size() + 2;
    }
  }
  const std::uint64_t data_begin = first_piece_at(json_bound);
  SegmentLayout layout;
  std::map<std::string, SegmentTensor> placed;
  std::uint64_t at = data_begin;
  for (std::uint32_t file = 0; file < files.size(); ++file) {
    for (const Tensor& tensor : files[file]) {
      const std::string in_cache = dtype_in_cache(tensor.dtype, dtype);
      const bool same = in_cache == tensor.dtype;
      const std::uint64_t bytes =
          same ? tensor.bytes : tensor.bytes / float_width(tensor.dtype) * float_width(in_cache);
      layout.pieces.push_back({file, tensor.begin, at, tensor.bytes, tensor.dtype, in_cache, bytes});
      placed.emplace(tensor.name, SegmentTensor{in_cache, tensor.shape, at, bytes});
      at = segment_aligned(at + bytes);
    }
  }
  layout.size = Bytes{at};
  layout.contents_json = cat("\"tensors\":", json::to_text(placed));
  return layout;
}

std::string segment_header(const SegmentLayout& layout, std::string_view model, std::string_view component,
                           std::string_view sha256) {
  std::string text = "{\"model\":";
  json::write_string(text, model);
  text += ",\"component\":";
  json::write_string(text, component);
  text += ",\"sha256\":";
  json::write_string(text, sha256);
  text += cat(",", layout.contents_json, "}");
  const std::uint64_t data_begin = layout.pieces.empty() ? layout.size.value : layout.pieces.front().to;
  LOCKSTEP_CHECK(8 + text.size() <= data_begin);
  text.resize(data_begin - 8, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(text.size() >> (8 * i));
  return out + text;
}

}  // namespace lockstep::model
