#pragma once

// Model domain, §1.3: the registry of models on disk, and which worker holds which.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "domains/model/dtype.h"
#include "domains/model/lifecycle.h"

namespace lockstep::model {

enum class Kind { unknown, sdxl, upscaler, safety_classifier, sdxl_refiner, lora, vae };
BOOST_DESCRIBE_ENUM(Kind, unknown, sdxl, upscaler, safety_classifier, sdxl_refiner, lora, vae)

/// A broken model stays listed with its reason; loads of it are refused.
enum class Availability { available, broken };
BOOST_DESCRIBE_ENUM(Availability, available, broken)

/// One file of a component: safetensors, or of its configuration. size and modified_ns tell whether sha256 still speaks
/// of this file.
struct File {
  std::string path;
  Bytes size;
  std::int64_t modified_ns = 0;
};
BOOST_DESCRIBE_STRUCT(File, (), (path, size, modified_ns))

/// segment_bytes is what the component takes in the cache, and on a device if it is weights; sha256 is over its files
/// in order and is empty until they were read once. dtype_in_cache is what its floating-point tensors are converted to;
/// absent when they stay as they are. The component "configuration" has whole files and no tensors (configuration.h).
struct Component {
  std::string name;
  std::vector<File> files;
  std::uint64_t tensors = 0;
  std::vector<std::string> dtypes;
  Bytes segment_bytes;
  std::string sha256;
  std::optional<CacheDtype> dtype_in_cache;
};
BOOST_DESCRIBE_STRUCT(Component, (), (name, files, tensors, dtypes, segment_bytes, sha256, dtype_in_cache))

/// What a model says it needs. role: "base", "refiner", "vae", "lora", or "configuration": the model of the same
/// architecture whose configuration and tokenizers a single file uses, which has none.
struct Dependency {
  std::string role;
  ModelId model_id;
};
BOOST_DESCRIBE_STRUCT(Dependency, (), (role, model_id))

/// What the files say of the model beside their bytes. version: what its files call it, else "g" and digits that
/// change with the size or time of any file. evidence: how kind and architecture were found, for people.
struct Facts {
  std::string architecture;
  std::vector<std::string> evidence;
  std::string version;
  std::vector<Dependency> depends_on;
  bool single_file = false;
};
BOOST_DESCRIBE_STRUCT(Facts, (), (architecture, evidence, version, depends_on, single_file))

struct Model {
  ModelId model_id;
  Kind kind = Kind::unknown;
  std::string path;
  Availability availability = Availability::broken;
  std::string reason;
  Bytes bytes;  // what a device must have for it: the sum of the segments that are weights
  std::vector<Component> components;
  std::optional<Facts> facts;  // absent for a model that an earlier release registered
};
BOOST_DESCRIBE_STRUCT(Model, (), (model_id, kind, path, availability, reason, bytes, components, facts))

/// A model on one worker. It exists from the load's decision until its memory is proven free.
struct Residency {
  ModelId model_id;
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  AllocationId allocation_id;
  TransactionId transaction_id;
  ResidencyState state = ResidencyState::loading;
  JobId wanted_by;  // the job that asked for the load
};
BOOST_DESCRIBE_STRUCT(Residency, (),
                      (model_id, worker_id, incarnation, device_id, allocation_id, transaction_id, state, wanted_by))

/// What was made of a model since it was registered: loads that ended well, and images that were given to a worker with
/// it. A time is absent until there was one.
struct Usage {
  std::uint64_t loads = 0;
  std::uint64_t uses = 0;
  std::optional<WallTime> last_loaded;
  std::optional<WallTime> last_used;
};
BOOST_DESCRIBE_STRUCT(Usage, (), (loads, uses, last_loaded, last_used))

}  // namespace lockstep::model
