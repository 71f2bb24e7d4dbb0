#include "domains/model/configuration.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/text.h"
#include "events/json_read.h"

namespace lockstep::model {

namespace {

struct SegmentFile {
  std::uint64_t offset;
  std::uint64_t bytes;
};
BOOST_DESCRIBE_STRUCT(SegmentFile, (), (offset, bytes))

/// Parts between slashes, none of them empty, ".", ".." or with a zero in it: it stays below the folder.
bool stays_below(std::string_view name) {
  if (name.find('\0') != std::string_view::npos) return false;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('/', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") return false;
    at = end + 1;
  }
  return true;
}

}  // namespace

bool is_configuration_file(std::string_view name) {
  constexpr std::array<std::string_view, 3> endings{".json", ".txt", ".model"};
  if (name.starts_with('.') || name == "lockstep.json" || name.ends_with(".index.json")) return false;
  return std::ranges::any_of(endings, [&](std::string_view ending) { return name.ends_with(ending); });
}

Result<SegmentLayout> lay_out_configuration(const std::vector<NamedFile>& files) {
  if (files.size() > configuration_files_max) {
    return fail(ErrorCode::too_large, cat("its configuration has ", files.size(), " files (", shortened(files[0].name),
                                          " and others); the limit is ", configuration_files_max));
  }
  Bytes all;
  for (const NamedFile& file : files) all += file.size;
  if (all > configuration_bytes_max) {
    const auto largest = std::ranges::max_element(files, {}, &NamedFile::size);
    return fail(ErrorCode::too_large,
                cat("its configuration has ", to_text(all), " (", shortened(largest->name), " ", to_text(largest->size),
                    "); the limit is ", to_text(configuration_bytes_max)));
  }
  std::map<std::string, SegmentFile> placed;
  for (const NamedFile& file : files) {
    if (!stays_below(file.name)) {
      return fail(ErrorCode::invalid_argument,
                  cat("the configuration file \"", shortened(file.name), "\" is not below the model's folder"));
    }
    if (!placed.try_emplace(file.name, SegmentFile{~0ULL, ~0ULL}).second) {
      return fail(ErrorCode::invalid_argument,
                  cat("the configuration file \"", shortened(file.name), "\" stands twice"));
    }
  }
  // The offsets stand in the header, whose length decides them: it is bounded by the widest number (20 digits).
  std::uint64_t at = first_piece_at(json::to_text(placed).size());
  SegmentLayout layout;
  for (std::uint32_t index = 0; index < files.size(); ++index) {
    const std::uint64_t bytes = files[index].size.value;
    layout.pieces.push_back({index, 0, at, bytes, "", "", bytes});
    placed[files[index].name] = {at, bytes};
    at = segment_aligned(at + bytes);
  }
  layout.size = Bytes{at};
  layout.contents_json = cat("\"files\":", json::to_text(placed));
  return layout;
}

bool is_weights(const Component& component) { return component.name != configuration_name; }

}  // namespace lockstep::model
