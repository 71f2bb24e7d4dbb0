#include "domains/model/guess.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/text.h"

namespace lockstep::model {

namespace {

/// A row fits when each of `needs` fits some tensor and `lacks` fits none. A pattern has at most one "*", at one end.
struct Family {
  std::string_view architecture;
  Kind kind;
  std::array<std::string_view, 4> needs;
  std::string_view lacks;
  std::string_view problem;  // why it cannot be used; empty when it can
};

constexpr std::array<Family, 16> families{{
    {"sdxl", Kind::sdxl,
     {"model.diffusion_model.input_blocks.*", "first_stage_model.*", "conditioner.embedders.0.transformer.*",
      "conditioner.embedders.1.model.*"}, "", ""},
    {"sdxl_refiner", Kind::sdxl_refiner,
     {"model.diffusion_model.input_blocks.*", "first_stage_model.*", "conditioner.embedders.0.model.*"},
     "conditioner.embedders.1.*", ""},
    {"stable_diffusion_1_or_2", Kind::unknown, {"model.diffusion_model.input_blocks.*", "cond_stage_model.*"}, "",
     "it is a Stable Diffusion 1 or 2 checkpoint; SDXL is what runs here"},
    {"stable_diffusion_3", Kind::unknown, {"model.diffusion_model.joint_blocks.*"}, "",
     "it is a Stable Diffusion 3 checkpoint; SDXL is what runs here"},
    {"flux", Kind::unknown, {"model.diffusion_model.double_blocks.*"}, "",
     "it is a Flux checkpoint; SDXL is what runs here"},
    {"flux", Kind::unknown, {"double_blocks.*"}, "", "it is a Flux transformer; SDXL is what runs here"},
    {"sdxl", Kind::unknown, {"model.diffusion_model.input_blocks.*"}, "",
     "it holds a UNet without its text encoders and VAE; a full checkpoint has all"},
    {"", Kind::lora, {"*.lora_down.weight"}, "", ""},
    {"", Kind::lora, {"*.lora_A.weight"}, "", ""},
    {"", Kind::lora, {"*.lora.down.weight"}, "", ""},
    {"autoencoder_kl", Kind::vae, {"encoder.down_blocks.*", "decoder.up_blocks.*"}, "", ""},
    {"autoencoder_kl", Kind::vae, {"encoder.down.*", "decoder.up.*"}, "", ""},
    {"swinir", Kind::upscaler, {"conv_first.weight", "layers.0.residual_group.*"}, "", ""},
    {"esrgan", Kind::upscaler, {"conv_first.weight", "conv_last.weight"}, "", ""},
    {"esrgan", Kind::upscaler, {"model.0.weight", "model.1.sub.*"}, "", ""},
    {"vit", Kind::unknown, {"classifier.weight"}, "",
     "it looks like an image classifier; that needs a folder with its config.json"},
}};

bool fits(std::string_view pattern, std::string_view name) {
  if (pattern.ends_with('*')) return name.starts_with(pattern.substr(0, pattern.size() - 1));
  if (pattern.starts_with('*')) return name.ends_with(pattern.substr(1));
  return name == pattern;
}

/// "model.0.*: 12 tensors, as model.0.weight"; absent when nothing fits.
std::optional<std::string> found(std::string_view pattern, const std::vector<Tensor>& tensors) {
  std::size_t count = 0;
  const Tensor* first = nullptr;
  for (const Tensor& tensor : tensors) {
    if (!fits(pattern, tensor.name)) continue;
    if (count++ == 0) first = &tensor;
  }
  if (first == nullptr) return std::nullopt;
  if (first->name == pattern) return std::string(pattern);
  return cat(pattern, ": ", count, count == 1 ? " tensor" : " tensors", ", as ", shortened(first->name));
}

/// The base of a LoRA: what its trainer wrote, else which text encoders it changes, else the width of the text that
/// its cross attention takes in.
void guess_base(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata, Guess& into) {
  for (const char* key : {"modelspec.architecture", "ss_base_model_version"}) {
    const auto place = metadata.find(key);
    if (place == metadata.end()) continue;
    into.architecture = architecture_named(place->second);
    into.evidence.push_back(cat(key, " is \"", shortened(place->second), "\""));
    if (!into.architecture.empty()) return;
  }
  for (const Tensor& tensor : tensors) {
    if (!tensor.name.starts_with("lora_te2_") && !tensor.name.starts_with("text_encoder_2.")) continue;
    into.architecture = "sdxl";
    into.evidence.push_back(cat("it changes a second text encoder, as ", shortened(tensor.name)));
    return;
  }
  static constexpr std::array<std::pair<std::uint64_t, std::string_view>, 4> widths{
      {{2048, "sdxl"}, {1280, "sdxl_refiner"}, {768, "stable_diffusion_1"}, {1024, "stable_diffusion_2"}}};
  for (const Tensor& tensor : tensors) {
    const bool down = tensor.name.ends_with(".lora_down.weight") || tensor.name.ends_with(".lora_A.weight") ||
                      tensor.name.ends_with(".lora.down.weight");
    const bool text = tensor.name.contains("attn2_to_k.") || tensor.name.contains("attn2.to_k.");
    if (!down || !text || tensor.shape.size() < 2) continue;
    const auto known = std::ranges::find(widths, tensor.shape[1], &std::pair<std::uint64_t, std::string_view>::first);
    if (known == widths.end()) continue;
    into.architecture = known->second;
    into.evidence.push_back(cat(shortened(tensor.name), " takes ", tensor.shape[1], " values of text"));
    return;
  }
}

}  // namespace

std::string architecture_named(const std::string& text) {
  std::string word;
  for (const char c : text) word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c == '-' ? '_' : c;
  const bool xl = word.contains("sdxl") || word.contains("stable_diffusion_xl");
  if (xl) return word.contains("refiner") ? "sdxl_refiner" : "sdxl";
  if (word.starts_with("sd_v1") || word.contains("stable_diffusion_v1")) return "stable_diffusion_1";
  if (word.starts_with("sd_v2") || word.contains("stable_diffusion_v2")) return "stable_diffusion_2";
  if (word.starts_with("sd3") || word.contains("stable_diffusion_3")) return "stable_diffusion_3";
  return word.contains("flux") ? "flux" : "";
}

Guess guess(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata) {
  for (const Family& family : families) {
    Guess out{family.kind, std::string(family.architecture), {}, std::string(family.problem)};
    bool all = family.lacks.empty() || !found(family.lacks, tensors);
    for (const std::string_view pattern : family.needs) {
      if (pattern.empty() || !all) continue;
      const auto evidence = found(pattern, tensors);
      all = evidence.has_value();
      if (all) out.evidence.push_back(*evidence);
    }
    if (!all) continue;
    if (family.kind == Kind::lora) {
      guess_base(tensors, metadata, out);
      if (out.architecture.empty()) {
        out.problem = "it is a LoRA, but nothing says for which base; name it as \"architecture\" in its lockstep.json";
      }
    }
    return out;
  }
  Guess out;
  out.problem = tensors.empty() ? std::string("it holds no tensor")
                                : cat("its tensors are of no known kind of model, as \"",
                                      shortened(tensors.front().name), "\"");
  return out;
}

}  // namespace lockstep::model
