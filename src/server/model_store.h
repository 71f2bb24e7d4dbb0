#pragma once

// Bringing models into the models folder and taking them out: whole or not at all, and nothing outside the folder is
// ever written or deleted. Pool threads only.

#include <string>

#include "base/result.h"

namespace lockstep::server {

/// path    of a .safetensors file or a folder on this machine, absolute; outside the models folder
/// name    a plain name that nothing in the models folder has
/// link    a symbolic link instead of a copy: the bytes stay where they are
/// invalid_argument or not_found say what is wrong with the path; a model that could not be used is refused with its
/// reason. A copy is on disk when this returns. Files that are no weights or configuration go along; pickles do not.
Status add_files(const std::string& models_dir, const std::string& path, const std::string& name, bool link);

/// Deletes the model's file with its sidecar, or its folder; of a link only the link. `path` is as it was scanned.
Status remove_files(const std::string& models_dir, const std::string& path);

}  // namespace lockstep::server
