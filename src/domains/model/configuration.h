#pragma once

// The small files of a model's folder that are no weights: tokenizers, configurations, metadata. Together they are one
// more component of the model (§1.3 "Model component caching"), in a segment of the same shape as the others, with
// whole files where those have tensors. docs/formats/segment.md.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "domains/model/safetensors.h"
#include "domains/model/types.h"

namespace lockstep::model {

inline constexpr std::string_view configuration_name = "configuration";

// An SDXL folder has some 15 such files of 3 MB, the largest tokenizers in use are files of 35 MB. What has more is no
// configuration, and every load would unpack it.
inline constexpr std::size_t configuration_files_max = 128;
inline constexpr Bytes configuration_bytes_max{64ULL << 20};

/// Whether a file of this name, which has no folders in it, is one of them: *.json, *.txt and *.model (the vocabularies
/// of SentencePiece). Not lockstep.json, which people write about the model, nor the index of weights in parts; and
/// nothing hidden.
bool is_configuration_file(std::string_view name);

/// A file of the configuration: its name below the model's folder ("tokenizer/vocab.json") and its size.
struct NamedFile {
  std::string name;
  Bytes size;
};

/// Where each file goes in the segment, in the given order, which is that of the names: equal files give equal bytes.
/// too_large over configuration_files_max or configuration_bytes_max; invalid_argument for a name that leads out of
/// the folder it is unpacked in, or stands twice.
Result<SegmentLayout> lay_out_configuration(const std::vector<NamedFile>& files);

/// Whether the component is weights, which go to the device.
bool is_weights(const Component& component);

}  // namespace lockstep::model
