#include "domains/model/rules.h"

#include <gtest/gtest.h>

#include "base/text.h"

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

class ModelNeeds : public testing::Test {
 protected:
  void put(const std::string& id, Kind kind, const std::string& architecture, bool single_file = false,
           std::vector<Dependency> depends_on = {}) {
    Model model = model_with(5, 1_MiB, "");
    model.model_id = ModelId(id);
    model.kind = kind;
    model.facts = Facts{architecture, {}, "g0", std::move(depends_on), single_file};
    ASSERT_TRUE(tables.models.apply({"model.models", id, RawJson{json::to_text(model)}}, Rev{++rev}));
  }
  const Model& at(const std::string& id) const { return tables.models.at(id); }

  Tables tables;
  std::uint64_t rev = 0;
};

TEST_F(ModelNeeds, a_single_file_takes_the_configuration_of_a_folder_of_its_architecture) {
  put("one", Kind::sdxl, "sdxl", true);
  EXPECT_EQ(usable(tables, ModelId("one")).error().code, ErrorCode::not_found);
  EXPECT_EQ(needs_of(tables, at("one")).at(0).state, "missing");
  put("folder", Kind::sdxl, "sdxl");
  EXPECT_EQ((*configuration_of(tables, at("one")))->model_id, ModelId("folder"));
  EXPECT_TRUE(usable(tables, ModelId("one")).has_value());
  EXPECT_EQ(needs_of(tables, at("one")).at(0).state, "available");
  put("a", Kind::sdxl, "sdxl", true);
  EXPECT_EQ(first_of_kind(tables, Kind::sdxl), ModelId("folder"));  // not the single file, though its name is first
}

TEST_F(ModelNeeds, the_parts_of_a_load_are_its_own_and_the_configuration_that_a_single_file_borrows) {
  const auto parts = [&](const std::string& id) {
    std::string out;
    for (const Part& each : parts_of(tables, at(id))) out += cat(each.model_id.str(), "/", each.component.name, " ");
    return out;
  };
  put("one", Kind::sdxl, "sdxl", true);
  EXPECT_EQ(parts("one"), "one/unet ");  // nobody lends: it cannot be used anyway
  put("folder", Kind::sdxl, "sdxl");
  Model folder = at("folder");
  Component& configuration = folder.components.emplace_back();
  configuration.name = "configuration";
  configuration.segment_bytes = 3_MiB;
  ASSERT_TRUE(tables.models.apply({"model.models", "folder", RawJson{json::to_text(folder)}}, Rev{++rev}));
  EXPECT_EQ(parts("folder"), "folder/unet folder/configuration ");
  EXPECT_EQ(parts("one"), "one/unet folder/configuration ");
  EXPECT_EQ(bytes_in_cache(tables, at("one")), 4_MiB);
}

TEST_F(ModelNeeds, a_named_configuration_must_fit) {
  put("folder", Kind::sdxl, "sdxl");
  put("up", Kind::upscaler, "esrgan");
  put("one", Kind::sdxl, "sdxl", true, {{"configuration", ModelId("up")}});
  EXPECT_NE(usable(tables, ModelId("one")).error().message.find("takes its configuration from up"), std::string::npos);
}

TEST_F(ModelNeeds, each_role_says_what_is_missing_or_does_not_fit) {
  put("xl", Kind::sdxl, "sdxl", false,
      {{"refiner", ModelId("none")}, {"vae", ModelId("up")}, {"lora", ModelId("old")}, {"lora", ModelId("new")}});
  put("up", Kind::upscaler, "esrgan");
  put("old", Kind::lora, "stable_diffusion_1", false, {{"base", ModelId("xl")}});
  put("new", Kind::lora, "sdxl", false, {{"base", ModelId("xl")}});
  const auto needs = needs_of(tables, at("xl"));
  ASSERT_EQ(needs.size(), 4u);
  EXPECT_EQ(needs[0].state, "missing");
  EXPECT_EQ(needs[1].state, "incompatible");
  EXPECT_EQ(needs[2].problem, "lora old is for stable_diffusion_1, xl is sdxl");
  EXPECT_EQ(needs[3].state, "available");
  EXPECT_EQ(needs_of(tables, at("old")).at(0).state, "incompatible");
  EXPECT_EQ(needs_of(tables, at("new")).at(0).state, "available");
}

}  // namespace
}  // namespace lockstep::model
