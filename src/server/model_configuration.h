#pragma once

// The configuration of a model on disk: which small files of its folder are no weights. Pool threads only.

#include <filesystem>
#include <memory>
#include <optional>

#include "base/result.h"
#include "domains/model/configuration.h"

namespace lockstep::server {

struct ScannedConfiguration {
  model::Component component;
  std::shared_ptr<const model::SegmentLayout> layout;
};

/// The component "configuration" of the model in `folder`: the files of model::is_configuration_file in it and, with
/// `sub_folders`, in those of its folders that are not hidden; in order of name. Absent when there are none.
///
/// invalid_argument names a link (it could lead to anybody's files, which would then go to workers) or what is no file;
/// too_large says which limit is passed. unavailable: the folder cannot be read.
Result<std::optional<ScannedConfiguration>> scan_configuration(const std::filesystem::path& folder, bool sub_folders);

}  // namespace lockstep::server
