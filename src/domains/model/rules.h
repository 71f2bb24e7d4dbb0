#pragma once

#include "base/result.h"
#include "domains/model/tables.h"

namespace lockstep::model {

/// The registered model if it can be loaded; not_found lists what there is, data_loss says why it is broken.
Result<Model> usable(const Tables& tables, const ModelId& model);

/// The first usable model of a kind in id order; empty when there is none.
ModelId first_of_kind(const Tables& tables, Kind kind);

/// The worker's residency of the model; nullptr when it holds none.
const Residency* residency(const Tables& tables, const ModelId& model, const WorkerId& worker);

/// `fresh` from a scan of the disk, with the digests that are still true of the same files taken over from `known`.
Model with_known_digests(Model fresh, const Model* known);

/// The residency after an event; an event its state does not accept is a defect.
Residency after(Residency residency, ResidencyEvent event);

}  // namespace lockstep::model
