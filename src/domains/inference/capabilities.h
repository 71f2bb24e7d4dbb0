#pragma once

// What a model can do, by its kind (§1.5 "Inference type capability tracking and validation"): which inference types it
// carries out as the base model, which operations of a postprocessing pipeline, and which part it plays beside a base
// model. This is data: a worker that learns to do more gets another word here. A kind is a word of model::Kind.

#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"

namespace lockstep::inference {

struct Capabilities {
  std::vector<std::string> inference_types;
  std::vector<std::string> operations;
  std::string role;  // beside a base model: "lora", "refiner", "vae"; empty for others
};
BOOST_DESCRIBE_STRUCT(Capabilities, (), (inference_types, operations, role))

Capabilities capabilities_of(std::string_view kind);

/// Whether the model does this type of inference; invalid_argument says what it is and what it can do.
Status validate_type(const std::string& inference_type, const ModelId& model, std::string_view kind);

}  // namespace lockstep::inference
