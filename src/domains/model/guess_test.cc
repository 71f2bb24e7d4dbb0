#include "domains/model/guess.h"

#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

std::vector<Tensor> named(const std::vector<std::string>& names) {
  std::vector<Tensor> out;
  for (const std::string& name : names) out.push_back({name, "F16", {4, 4}, 0, 32});
  return out;
}

TEST(model_guess, each_family_is_told_by_its_names) {
  struct Case {
    std::vector<std::string> names;
    Kind kind;
    std::string architecture;
  };
  const std::string unet = "model.diffusion_model.input_blocks.0.0.weight";
  const std::string vae = "first_stage_model.encoder.conv_in.weight";
  const std::vector<Case> cases{
      {{unet, vae, "conditioner.embedders.0.transformer.text_model.a", "conditioner.embedders.1.model.ln_final.bias"},
       Kind::sdxl, "sdxl"},
      {{unet, vae, "conditioner.embedders.0.model.ln_final.bias"}, Kind::sdxl_refiner, "sdxl_refiner"},
      {{unet, vae, "cond_stage_model.transformer.a"}, Kind::unknown, "stable_diffusion_1_or_2"},
      {{"model.diffusion_model.joint_blocks.0.a"}, Kind::unknown, "stable_diffusion_3"},
      {{"double_blocks.0.img_attn.qkv.weight"}, Kind::unknown, "flux"},
      {{unet}, Kind::unknown, "sdxl"},
      {{"encoder.down_blocks.0.a", "decoder.up_blocks.0.a"}, Kind::vae, "autoencoder_kl"},
      {{"encoder.down.0.a", "decoder.up.0.a"}, Kind::vae, "autoencoder_kl"},
      {{"conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"}, Kind::upscaler, "esrgan"},
      {{"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"}, Kind::upscaler, "esrgan"},
      {{"conv_first.weight", "conv_last.weight", "layers.0.residual_group.blocks.0.a"}, Kind::upscaler, "swinir"},
      {{"vit.embeddings.cls_token", "classifier.weight"}, Kind::unknown, "vit"},
  };
  for (const Case& each : cases) {
    const Guess found = guess(named(each.names), {});
    EXPECT_EQ(found.kind, each.kind) << each.names.front();
    EXPECT_EQ(found.architecture, each.architecture) << each.names.front();
    EXPECT_EQ(found.problem.empty(), each.kind != Kind::unknown) << found.problem;
    EXPECT_FALSE(found.evidence.empty());
  }
}

TEST(model_guess, a_lora_names_its_base_by_metadata_text_encoder_or_width) {
  const auto lora = named({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"});
  EXPECT_EQ(guess(lora, {{"ss_base_model_version", "sdxl_base_v1-0"}}).architecture, "sdxl");
  EXPECT_EQ(guess(lora, {{"modelspec.architecture", "stable-diffusion-xl-v1-refiner/lora"}}).architecture,
            "sdxl_refiner");
  EXPECT_EQ(guess(lora, {{"ss_base_model_version", "sd_v1"}}).architecture, "stable_diffusion_1");
  EXPECT_EQ(guess(named({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"}), {}).architecture, "sdxl");
  for (const auto& [width, architecture] :
       {std::pair(2048, "sdxl"), std::pair(768, "stable_diffusion_1"), std::pair(1024, "stable_diffusion_2")}) {
    const std::vector<Tensor> tensors{{"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight",
                                       "F32", {4, static_cast<std::uint64_t>(width)}, 0, 0}};
    EXPECT_EQ(guess(tensors, {}).kind, Kind::lora);
    EXPECT_EQ(guess(tensors, {}).architecture, architecture);
  }
}

TEST(model_guess, a_lora_without_a_base_and_unknown_tensors_say_what_is_wrong) {
  EXPECT_NE(guess(named({"a.lora_down.weight"}), {}).problem.find("nothing says for which base"), std::string::npos);
  const Guess unknown = guess(named({"layer.weight"}), {});
  EXPECT_EQ(unknown.kind, Kind::unknown);
  EXPECT_NE(unknown.problem.find("\"layer.weight\""), std::string::npos) << unknown.problem;
  EXPECT_NE(guess({}, {}).problem.find("no tensor"), std::string::npos);
}

TEST(model_guess, the_evidence_counts_and_shows_a_name) {
  const Guess found = guess(named({"encoder.down.0.a", "encoder.down.1.a", "decoder.up.0.a"}), {});
  ASSERT_EQ(found.evidence.size(), 2u);
  EXPECT_EQ(found.evidence[0], "encoder.down.*: 2 tensors, as encoder.down.0.a");
}

}  // namespace
}  // namespace lockstep::model
