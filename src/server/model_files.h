#pragma once

// Models on disk: what a folder holds, and how its bytes get into a cache segment. Reads files; pool threads only.

#include <functional>
#include <string>

#include "base/result.h"
#include "env/real/fd.h"
#include "orchestrator/effect.h"
#include "orchestrator/input.h"

namespace lockstep::server {

/// Every sub-folder of `folder` is one model, named by the folder, and so is every file of weights, named without its
/// ending:
///   model_index.json               a diffusers pipeline; its sub-folders with safetensors are the components
///   config.json + *.safetensors    a transformers image classifier (safety), or a VAE
///                                  of both the small files beside the weights are one more component, "configuration"
///   *.safetensors alone            what its tensors say (domains/model/guess.h)
/// lockstep.json in the folder, or <name>.lockstep.json beside the file, adds version and dependencies.
/// A model that cannot be used is listed as broken with its reason; pickle files are refused, never opened.
///
/// A model that is broken and was written to within `settled` is left out, as unsettled: somebody may still be copying
/// it. `dtype` is what floating-point tensors become in the cache.
in::ModelsScanned scan_models(const std::string& folder, Nanos settled = 0,
                              model::CacheDtype dtype = model::CacheDtype::as_is);

/// One file or folder as a model of this name.
in::ScannedModel scan_model(const std::string& path, const std::string& name);

/// SHA-256 over the files in order; they must be those that were scanned (data_loss otherwise).
Result<std::string> hash_files(const std::vector<model::File>& files);

/// Fills one segment from the component's files: read once, hashed, copied or converted in the same pass, sealed. The
/// files must be those that were scanned (data_loss otherwise). Returns the sealed descriptor and the digest of the
/// files.
struct FilledSegment {
  real::Fd file;
  std::string sha256;
};
Result<FilledSegment> fill_segment(const out::FillSegment& order);

}  // namespace lockstep::server
