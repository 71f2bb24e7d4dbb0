#pragma once

#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/result.h"
#include "domains/model/tables.h"

namespace lockstep::model {

/// The row of a registered model that can be loaded; not_found lists what there is, data_loss says why it is broken.
Result<const Model*> usable(const Tables& tables, const ModelId& model);

/// What a model needs beside itself: what it declares, and the configuration that a single file borrows.
/// state: "available", "broken", "missing" or "incompatible"; problem says why, for people.
struct Need {
  std::string role;
  ModelId model_id;
  std::string state;
  std::string problem;
};
BOOST_DESCRIBE_STRUCT(Need, (), (role, model_id, state, problem))
std::vector<Need> needs_of(const Tables& tables, const Model& model);

/// Whose folder has the configuration of the model: its own, or for a single file that of a folder of the same
/// architecture: the one it names, its base, else the first. `model` itself or a row; not_found says what would help.
Result<const Model*> configuration_of(const Tables& tables, const Model& model);

/// A segment that a load of a model takes from the cache, and whose it is. Both stand where the model stands: they are
/// asked for at every step of a load, and a component has the names of all its files.
struct Part {
  const ModelId& model_id;
  const Component& component;
};
/// The model's own components, and the configuration that a single file borrows.
std::vector<Part> parts_of(const Tables& tables, const Model& model);
/// What they take of the cache, all together.
Bytes bytes_in_cache(const Tables& tables, const Model& model);

/// Why the other cannot play the role for the model; empty when it can. A sentence.
std::string unfit_because(const Model& model, const std::string& role, const Model& other);

/// The first usable model of a kind in id order; empty when there is none.
ModelId first_of_kind(const Tables& tables, Kind kind);

/// The worker's residency of the model; nullptr when it holds none.
const Residency* residency(const Tables& tables, const ModelId& model, const WorkerId& worker);

/// `fresh` from a scan of the disk, with the digests that are still true of the same files taken over from `known`.
Model with_known_digests(Model fresh, const Model* known);

/// What was made of the model so far.
Usage usage_of(const Tables& tables, const ModelId& model);
Usage loaded_once_more(Usage usage, WallTime now);
Usage used_once_more(Usage usage, WallTime now);

/// The residency after an event; an event its state does not accept is a defect.
Residency after(Residency residency, ResidencyEvent event);

}  // namespace lockstep::model
