#include "domains/inference/capabilities.h"

#include <algorithm>

#include "base/text.h"

namespace lockstep::inference {

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += cat(out.empty() ? "" : ", ", word);
  return out;
}

}  // namespace

Capabilities capabilities_of(std::string_view kind) {
  if (kind == "sdxl") return {{"text_to_image"}, {}, ""};
  if (kind == "upscaler") return {{}, {"upscaling"}, ""};
  if (kind == "safety_classifier") return {{}, {"safety_check"}, ""};
  if (kind == "sdxl_refiner") return {{}, {}, "refiner"};
  if (kind == "lora" || kind == "vae") return {{}, {}, std::string(kind)};
  return {};
}

Status validate_type(const std::string& inference_type, const ModelId& model, std::string_view kind) {
  const Capabilities can = capabilities_of(kind);
  if (can.inference_types.empty()) {
    const std::string other = !can.operations.empty() ? cat("; it does ", joined(can.operations))
                              : can.role.empty()      ? std::string()
                                                      : cat("; it goes with a base model");
    return fail(ErrorCode::invalid_argument, cat("model ", model.str(), " is no image model but ", kind, other),
                "/model");
  }
  if (std::ranges::find(can.inference_types, inference_type) != can.inference_types.end()) return {};
  return fail(ErrorCode::invalid_argument,
              cat("inference_type is \"", shortened(inference_type), "\"; model ", model.str(), " can do ",
                  joined(can.inference_types)),
              "/inference_type");
}

}  // namespace lockstep::inference
