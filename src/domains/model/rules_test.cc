#include "domains/model/rules.h"

#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

Model model_with(std::int64_t modified, Bytes size, std::string sha256) {
  Model model;
  model.model_id = ModelId("m");
  model.availability = Availability::available;
  model.components = {{"unet", {{"/m/unet.safetensors", size, modified}}, 1, {"F16"}, 1_MiB, std::move(sha256)}};
  return model;
}

TEST(ModelRules, a_digest_is_kept_for_the_same_file) {
  const Model known = model_with(5, 1_MiB, "digest");
  EXPECT_EQ(with_known_digests(model_with(5, 1_MiB, ""), &known).components[0].sha256, "digest");
}

TEST(ModelRules, a_digest_is_forgotten_with_any_change_of_the_file) {
  const Model known = model_with(5, 1_MiB, "digest");
  EXPECT_EQ(with_known_digests(model_with(6, 1_MiB, ""), &known).components[0].sha256, "");
  EXPECT_EQ(with_known_digests(model_with(5, 2_MiB, ""), &known).components[0].sha256, "");
  Model moved = model_with(5, 1_MiB, "");
  moved.components[0].files[0].path = "/n/unet.safetensors";
  EXPECT_EQ(with_known_digests(moved, &known).components[0].sha256, "");
  Model renamed = model_with(5, 1_MiB, "");
  renamed.components[0].name = "vae";
  EXPECT_EQ(with_known_digests(renamed, &known).components[0].sha256, "");
  Model more = model_with(5, 1_MiB, "");
  more.components[0].files.push_back({"/m/unet_2.safetensors", 1_MiB, 5});
  EXPECT_EQ(with_known_digests(more, &known).components[0].sha256, "");
  EXPECT_EQ(with_known_digests(model_with(5, 1_MiB, ""), nullptr).components[0].sha256, "");
}

TEST(ModelRules, an_unknown_model_lists_the_known_and_a_broken_one_its_reason) {
  Tables tables;
  EXPECT_NE(usable(tables, ModelId("x")).error().message.find("registered: none"), std::string::npos);
  Model broken = model_with(5, 1_MiB, "");
  broken.availability = Availability::broken;
  broken.reason = "it is cut short";
  ASSERT_TRUE(tables.models.apply({"model.models", "m", RawJson{json::to_text(broken)}}, Rev{1}));
  const auto unknown = usable(tables, ModelId("x"));
  EXPECT_EQ(unknown.error().code, ErrorCode::not_found);
  EXPECT_NE(unknown.error().message.find("registered: m"), std::string::npos);
  const auto refused = usable(tables, ModelId("m"));
  EXPECT_EQ(refused.error().code, ErrorCode::data_loss);
  EXPECT_NE(refused.error().message.find("it is cut short"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::model
