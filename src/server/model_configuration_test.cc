#include "server/model_configuration.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>

#include "base/digest.h"
#include "base/text.h"
#include "env/real/memory_file.h"
#include "server/model_files.h"

namespace lockstep::server {
namespace {

namespace fs = std::filesystem;

std::string safetensors() {
  const std::string header = R"({"conv_first.weight":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("conv_last.weight":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})";
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + "AAAABBBB";
}

/// A pipeline's folder "xl", as small as one can be.
class ModelConfiguration : public testing::Test {
 protected:
  ModelConfiguration() {
    std::string name = (fs::temp_directory_path() / "lockstep_models_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~ModelConfiguration() override { fs::remove_all(folder_); }
  void SetUp() override {
    ASSERT_FALSE(folder_.empty());
    write("xl/model_index.json", index_);
    write("xl/unet/a.safetensors", safetensors());
    write("xl/unet/config.json", "{}");
    write("xl/tokenizer/vocab.json", R"({"a":1})");
    write("xl/tokenizer/merges.txt", "a b\n");
  }
  void write(const std::string& name, const std::string& bytes) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  in::ScannedModel scanned(const std::string& name = "xl") const {
    for (const in::ScannedModel& each : scan_models(folder_.string()).models) {
      if (each.model.model_id == ModelId(name)) return each;
    }
    ADD_FAILURE() << name << " was not found";
    return {};
  }
  std::vector<std::string> names(const model::Component& component) const {
    std::vector<std::string> out;
    for (const model::File& each : component.files) out.push_back(fs::relative(each.path, folder_ / "xl").string());
    return out;
  }
  void expect_broken(std::string_view reason) const {
    const in::ScannedModel found = scanned();
    EXPECT_EQ(found.model.availability, model::Availability::broken);
    EXPECT_NE(found.model.reason.find(reason), std::string::npos) << found.model.reason;
    EXPECT_TRUE(found.layouts.empty());
  }
  static out::FillSegment order(const in::ScannedModel& model) {
    EXPECT_EQ(model.model.reason, "");
    return {model.model.model_id, model.model.components.back().name, model.model.components.back().files,
            model.layouts.back()};
  }

  const std::string index_ = R"({"_class_name":"StableDiffusionXLPipeline"})";
  fs::path folder_;
};

// §1.3 "Model component caching (tokenizers, configs, metadata)".
TEST_F(ModelConfiguration, a_scan_finds_the_files_that_are_no_weights_and_orders_them_by_name) {
  write("xl/README.md", "no");
  write("xl/lockstep.json", R"({"version":"2"})");
  write("xl/unet/a.safetensors.index.json", "{}");
  write("xl/unet/modeling.py", "raise SystemExit");
  write("xl/.cache/old.json", "{}");
  write("xl/tokenizer/deeper/x.json", "{}");
  const in::ScannedModel found = scanned();
  ASSERT_EQ(found.model.components.size(), 2u) << found.model.reason;
  const model::Component& configuration = found.model.components[1];
  EXPECT_EQ(configuration.name, "configuration");
  EXPECT_EQ(names(configuration), (std::vector<std::string>{"model_index.json", "tokenizer/merges.txt",
                                                            "tokenizer/vocab.json", "unet/config.json"}));
  EXPECT_EQ(configuration.tensors, 0u);
  EXPECT_EQ(configuration.sha256, "");  // not read yet
  ASSERT_EQ(found.layouts.size(), 2u);
  EXPECT_EQ(found.layouts[1]->size, configuration.segment_bytes);
  EXPECT_EQ(found.model.bytes, found.model.components[0].segment_bytes);  // no device holds it
}

TEST_F(ModelConfiguration, a_folder_that_is_no_pipeline_has_its_own_files_only) {
  write("safe/config.json", R"({"architectures":["ViTForImageClassification"]})");
  write("safe/preprocessor_config.json", "{}");
  write("safe/model.safetensors", safetensors());
  write("safe/samples/caption.txt", "a cat");
  const in::ScannedModel found = scanned("safe");
  ASSERT_EQ(found.model.components.size(), 2u) << found.model.reason;
  EXPECT_EQ(found.model.components[1].files.size(), 2u);
  write("up/model.safetensors", safetensors());
  write("up/notes.txt", "nobody would read it");
  EXPECT_EQ(scanned("up").model.components.size(), 1u);
}

TEST_F(ModelConfiguration, it_is_filled_with_the_files_as_they_are_and_hashed_in_their_order) {
  const in::ScannedModel found = scanned();
  const auto segment = fill_segment(order(found));
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  const std::string all = cat(index_, "a b\n", R"({"a":1})", "{}");
  EXPECT_EQ(segment->sha256, sha256_hex(all));
  EXPECT_EQ(*hash_files(found.model.components[1].files), segment->sha256);  // what `models verify` compares with
  std::string bytes(found.layouts[1]->size.value, '\0');
  ASSERT_EQ(::pread(segment->file.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(bytes.substr(8).find(R"({"model":"xl","component":"configuration","sha256":")" + segment->sha256), 0u);
  std::string contents;
  for (const model::CopyPiece& each : found.layouts[1]->pieces) contents += bytes.substr(each.to, each.bytes);
  EXPECT_EQ(contents, all);

  const auto again = fill_segment(order(scanned()));
  ASSERT_TRUE(again.has_value());
  std::string same(bytes.size(), '\1');
  ASSERT_EQ(::pread(again->file.get(), same.data(), same.size(), 0), static_cast<ssize_t>(same.size()));
  EXPECT_EQ(same, bytes);
}

TEST_F(ModelConfiguration, a_file_that_changed_since_the_scan_is_data_loss) {
  const out::FillSegment fill = order(scanned());
  write("xl/tokenizer/merges.txt", "a b\nb c\n");
  const auto segment = fill_segment(fill);
  ASSERT_FALSE(segment.has_value());
  EXPECT_EQ(segment.error().code, ErrorCode::data_loss);
  EXPECT_NE(segment.error().message.find("merges.txt changed since it was registered"), std::string::npos);
}

TEST_F(ModelConfiguration, links_and_what_is_no_file_are_refused) {
  write("secret.json", "{}");
  fs::create_symlink(folder_ / "secret.json", folder_ / "xl/tokenizer/extra.json");
  expect_broken("tokenizer/extra.json is a link");
  fs::remove(folder_ / "xl/tokenizer/extra.json");

  write("elsewhere/config.json", "{}");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "xl/scheduler");
  expect_broken("xl/scheduler is a link and holds scheduler/config.json");
  fs::remove(folder_ / "xl/scheduler");

  ASSERT_EQ(::mkfifo((folder_ / "xl/tokenizer/pipe.json").c_str(), 0600), 0);
  expect_broken("pipe.json is no file");
  fs::remove(folder_ / "xl/tokenizer/pipe.json");

  fs::create_symlink("README.md", folder_ / "xl/NOTES.md");  // nobody reads it
  EXPECT_EQ(scanned().model.reason, "");
}

TEST_F(ModelConfiguration, the_model_says_which_limit_it_passes) {
  for (int i = 0; i < 128; ++i) write(cat("xl/tokenizer/", i, ".txt"), "x");
  expect_broken("its configuration has 132 files");
  expect_broken("the limit is 128");
  for (int i = 0; i < 128; ++i) fs::remove(folder_ / cat("xl/tokenizer/", i, ".txt"));
  fs::resize_file(folder_ / "xl/tokenizer/vocab.json", (64u << 20) + 1);
  expect_broken("tokenizer/vocab.json");
  expect_broken(cat("the limit is ", to_text(64_MiB)));
}

}  // namespace
}  // namespace lockstep::server
