#pragma once

// What a person set for one model (§1.3, §1.5): taken where a request says nothing, and a limit of its own.

#include <string>

#include "base/result.h"
#include "domains/inference/rules.h"

namespace lockstep::inference {

/// Nothing is set unless somebody did.
Tuning tuning_of(const Tables& tables, const ModelId& model);

/// Every value within its limit, and default_steps within max_steps; invalid_argument names field, value and limit.
Status validate(const Tuning& tuning, const Limits& limits);

/// `named` over `before`: what it does not name stays.
Tuning merged(Tuning before, const Tuning& named);

/// What a request that names no steps gets: the model's default, else the server's where the model's limit allows it.
std::uint32_t default_steps(const Tuning& tuning, std::uint32_t of_server);

/// invalid_argument names the model's limit.
Status within_tuning(const InferenceParameters& parameters, const ModelId& model, const Tuning& tuning);

}  // namespace lockstep::inference
