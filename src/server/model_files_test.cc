#include "server/model_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/digest.h"
#include "base/text.h"
#include "env/real/memory_file.h"

namespace lockstep::server {
namespace {

namespace fs = std::filesystem;

std::string safetensors(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + data;
}

/// Two tensors of 4 and 300 bytes, told apart by their bytes.
std::string upscaler_file() {
  return safetensors(R"({"conv_first.weight":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                     R"("conv_last.weight":{"dtype":"U8","shape":[300],"data_offsets":[4,304]}})",
                     "AAAA" + std::string(300, 'B'));
}

class ModelFilesTest : public testing::Test {
 protected:
  ModelFilesTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_models_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~ModelFilesTest() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  void write(const std::string& name, const std::string& bytes) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  /// The one model in the folder, which must be there.
  in::ScannedModel scanned(const std::string& name) const {
    for (const in::ScannedModel& each : scan_models(folder_.string()).models) {
      if (each.model.model_id == ModelId(name)) return each;
    }
    ADD_FAILURE() << name << " was not found";
    return {};
  }
  void expect_broken(const std::string& name, std::string_view reason) const {
    const in::ScannedModel model = scanned(name);
    EXPECT_EQ(model.model.availability, model::Availability::broken);
    EXPECT_NE(model.model.reason.find(reason), std::string::npos) << model.model.reason;
    EXPECT_TRUE(model.model.components.empty());
    EXPECT_TRUE(model.layouts.empty());
    EXPECT_EQ(model.model.bytes, Bytes{});
  }
  out::FillSegment order(const std::string& name) const {
    const in::ScannedModel model = scanned(name);
    EXPECT_EQ(model.model.reason, "");
    if (model.layouts.empty()) return {};
    return {model.model.model_id, model.model.components[0].name, model.model.components[0].files, model.layouts[0]};
  }

  fs::path folder_;
};

TEST_F(ModelFilesTest, a_folder_of_safetensors_alone_is_an_upscaler) {
  write("up/weights.safetensors", upscaler_file());
  const in::ScannedModel found = scanned("up");
  EXPECT_EQ(found.model.kind, model::Kind::upscaler);
  EXPECT_EQ(found.model.availability, model::Availability::available) << found.model.reason;
  ASSERT_EQ(found.model.components.size(), 1u);
  const model::Component& component = found.model.components[0];
  EXPECT_EQ(component.name, "model");
  EXPECT_EQ(component.tensors, 2u);
  EXPECT_EQ(component.dtypes, std::vector<std::string>{"U8"});
  EXPECT_EQ(component.sha256, "");  // not read yet
  ASSERT_EQ(component.files.size(), 1u);
  EXPECT_EQ(component.files[0].path, path("up/weights.safetensors"));
  EXPECT_EQ(component.files[0].size, Bytes{upscaler_file().size()});
  EXPECT_EQ(found.model.bytes, component.segment_bytes);
  ASSERT_EQ(found.layouts.size(), 1u);
  EXPECT_EQ(found.layouts[0]->size, component.segment_bytes);
}

TEST_F(ModelFilesTest, a_pipeline_has_its_sub_folders_as_components) {
  write("xl/model_index.json", R"({"_class_name":"StableDiffusionXLPipeline"})");
  write("xl/vae/a.safetensors", upscaler_file());
  write("xl/unet/a.safetensors", upscaler_file());
  write("xl/tokenizer/vocab.json", "{}");
  const in::ScannedModel found = scanned("xl");
  EXPECT_EQ(found.model.kind, model::Kind::sdxl);
  ASSERT_EQ(found.model.components.size(), 3u) << found.model.reason;
  EXPECT_EQ(found.model.components[0].name, "unet");
  EXPECT_EQ(found.model.components[1].name, "vae");
  EXPECT_EQ(found.model.components[2].name, "configuration");
  EXPECT_EQ(found.model.bytes, found.model.components[0].segment_bytes + found.model.components[1].segment_bytes);
}

TEST_F(ModelFilesTest, an_image_classifier_is_a_safety_classifier) {
  write("safe/config.json", R"({"architectures":["ViTForImageClassification"]})");
  write("safe/model.safetensors", upscaler_file());
  EXPECT_EQ(scanned("safe").model.kind, model::Kind::safety_classifier);
  write("text/config.json", R"({"architectures":["BertModel"]})");
  write("text/model.safetensors", upscaler_file());
  expect_broken("text", "no image classifier");
}

TEST_F(ModelFilesTest, a_file_cut_short_is_broken_with_its_path) {
  write("up/weights.safetensors", upscaler_file().substr(0, upscaler_file().size() - 1));
  expect_broken("up", "it is cut short");
  expect_broken("up", path("up/weights.safetensors"));
}

TEST_F(ModelFilesTest, an_empty_file_is_broken) {
  write("up/weights.safetensors", "");
  expect_broken("up", "the file has 0 bytes");
}

TEST_F(ModelFilesTest, pickle_alone_is_refused) {
  write("old/model.ckpt", "cos\nsystem\n(S'false'\ntR.");
  expect_broken("old", "holds pickle files only");
}

TEST_F(ModelFilesTest, an_empty_folder_is_broken_and_hides_nobody) {
  fs::create_directories(folder_ / "empty");
  write("up/weights.safetensors", upscaler_file());
  expect_broken("empty", "no safetensors file");
  EXPECT_EQ(scanned("up").model.availability, model::Availability::available);
}

TEST_F(ModelFilesTest, hidden_and_oddly_named_folders_are_not_models) {
  write(".incoming/weights.safetensors", upscaler_file());
  write("two words/weights.safetensors", upscaler_file());
  write(".loose.safetensors", upscaler_file());
  write("notes.txt", "x");
  EXPECT_TRUE(scan_models(folder_.string()).models.empty());
}

TEST_F(ModelFilesTest, a_single_file_is_a_model_named_without_its_ending) {
  write("loose.safetensors", upscaler_file());
  const in::ScannedModel found = scanned("loose");
  EXPECT_EQ(found.model.availability, model::Availability::available) << found.model.reason;
  EXPECT_EQ(found.model.kind, model::Kind::upscaler);
  EXPECT_EQ(found.model.path, path("loose.safetensors"));
  ASSERT_TRUE(found.model.facts.has_value());
  EXPECT_EQ(found.model.facts->architecture, "esrgan");
  EXPECT_EQ(found.model.facts->evidence.size(), 2u);
}

TEST_F(ModelFilesTest, a_file_that_is_no_model_stays_listed_with_the_reason) {
  write("odd.safetensors", safetensors(R"({"z":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "ZZZ"));
  expect_broken("odd", "of no known kind of model, as \"z\"");
  write("old.ckpt", "cos");
  expect_broken("old", "is a pickle file");
  write("both.safetensors", upscaler_file());
  write("both/weights.safetensors", upscaler_file());
  expect_broken("both", "rename one of them");
}

TEST_F(ModelFilesTest, a_changed_file_is_a_new_version_and_a_sidecar_names_one) {
  write("up.safetensors", upscaler_file());
  const std::string first = scanned("up").model.facts->version;
  EXPECT_EQ(scanned("up").model.facts->version, first);
  fs::last_write_time(path("up.safetensors"), fs::last_write_time(path("up.safetensors")) + std::chrono::seconds(5));
  EXPECT_NE(scanned("up").model.facts->version, first);
  write("up.lockstep.json", R"({"version":"2.1","base_model":"xl","loras":["a","b"]})");
  const model::Facts facts = *scanned("up").model.facts;
  EXPECT_EQ(facts.version, "2.1");
  ASSERT_EQ(facts.depends_on.size(), 3u);
  EXPECT_EQ(facts.depends_on[0].role, "base");
  EXPECT_EQ(facts.depends_on[2].model_id, ModelId("b"));
}

TEST_F(ModelFilesTest, a_sidecar_that_cannot_be_read_is_named_with_its_key) {
  write("up.safetensors", upscaler_file());
  write("up.lockstep.json", R"({"verison":"2"})");
  expect_broken("up", "up.lockstep.json: the key /verison is unknown");
  write("up.lockstep.json", R"({"vae":"../../etc"})");
  expect_broken("up", "it must be a model's name");
}

TEST_F(ModelFilesTest, a_models_folder_that_is_not_there_is_a_problem_with_its_path) {
  const in::ModelsScanned scan = scan_models(path("nowhere"));
  EXPECT_TRUE(scan.models.empty());
  EXPECT_NE(scan.problem.find(path("nowhere")), std::string::npos) << scan.problem;
}

TEST_F(ModelFilesTest, a_filled_segment_has_the_files_bytes_at_the_layouts_offsets) {
  write("up/weights.safetensors", upscaler_file());
  const out::FillSegment fill = order("up");
  ASSERT_NE(fill.layout, nullptr);
  const auto segment = fill_segment(fill);
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  const auto size = real::size_of(segment->file.get());
  ASSERT_EQ(*size, fill.layout->size);
  const auto bytes_at = [&](std::uint64_t at, std::uint64_t count) {
    std::string out(count, '\0');
    EXPECT_EQ(::pread(segment->file.get(), out.data(), count, static_cast<off_t>(at)), static_cast<ssize_t>(count));
    return out;
  };
  ASSERT_EQ(fill.layout->pieces.size(), 2u);
  const std::string file = upscaler_file();
  for (const model::CopyPiece& piece : fill.layout->pieces) {
    EXPECT_EQ(bytes_at(piece.to, piece.bytes), file.substr(piece.from, piece.bytes));
  }
  EXPECT_EQ(bytes_at(fill.layout->pieces[1].to, 300), std::string(300, 'B'));
  const std::string header = model::segment_header(*fill.layout, "up", "model", segment->sha256);
  EXPECT_EQ(bytes_at(0, header.size()), header);
}

// Converted once, on the way into the cache: the digest is the file's, length and dtype are the cache's.
TEST_F(ModelFilesTest, a_segment_of_another_dtype_is_half_as_large_and_its_integers_stay) {
  const std::string data = std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8) + "\x07\x08\x09";  // 1.0, -2.0; 7, 8, 9
  const std::string file = safetensors(R"({"conv.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                       R"("steps":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
                                       data);
  write("vae/config.json", R"({"_class_name": "AutoencoderKL"})");
  write("vae/weights.safetensors", file);
  const in::ModelsScanned scanned = scan_models(folder_.string(), 0, model::CacheDtype::bf16);
  ASSERT_EQ(scanned.models.size(), 1u);
  ASSERT_EQ(scanned.models[0].layouts.size(), 2u) << scanned.models[0].model.reason;
  const model::Component& component = scanned.models[0].model.components[0];
  EXPECT_EQ(component.dtype_in_cache, model::CacheDtype::bf16);
  const out::FillSegment fill{ModelId("vae"), "model", component.files, scanned.models[0].layouts[0]};
  const auto segment = fill_segment(fill);
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  EXPECT_EQ(segment->sha256, sha256_hex(file));
  ASSERT_EQ(fill.layout->pieces.size(), 2u);
  const auto bytes_at = [&](std::uint64_t at, std::uint64_t count) {
    std::string out(count, '\0');
    EXPECT_EQ(::pread(segment->file.get(), out.data(), count, static_cast<off_t>(at)), static_cast<ssize_t>(count));
    return out;
  };
  EXPECT_EQ(bytes_at(fill.layout->pieces[0].to, 4), std::string("\x80\x3f\x00\xc0", 4));
  EXPECT_EQ(bytes_at(fill.layout->pieces[1].to, 3), "\x07\x08\x09");
  EXPECT_NE(fill.layout->contents_json.find("BF16"), std::string::npos);
  EXPECT_EQ(fill.layout->contents_json.find("F32"), std::string::npos);
}

TEST_F(ModelFilesTest, the_digest_is_that_of_the_whole_file) {
  write("up/weights.safetensors", upscaler_file());
  const auto segment = fill_segment(order("up"));
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  EXPECT_EQ(segment->sha256, sha256_hex(upscaler_file()));
}

TEST_F(ModelFilesTest, two_files_of_a_component_are_hashed_in_name_order) {
  const std::string other = safetensors(R"({"z":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "ZZZ");
  write("up/b.safetensors", upscaler_file());
  write("up/a.safetensors", other);
  const auto segment = fill_segment(order("up"));
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  EXPECT_EQ(segment->sha256, sha256_hex(other + upscaler_file()));
}

TEST_F(ModelFilesTest, a_segment_can_be_changed_by_nobody) {
  write("up/weights.safetensors", upscaler_file());
  const auto segment = fill_segment(order("up"));
  ASSERT_TRUE(segment.has_value()) << segment.error().message;
  const int fd = segment->file.get();
  EXPECT_EQ(::fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  errno = 0;
  EXPECT_EQ(::pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::ftruncate(fd, 1), -1);
  void* const writable = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  EXPECT_EQ(writable, MAP_FAILED);
  void* const readable = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(readable, MAP_FAILED);
  EXPECT_NE(::mprotect(readable, 4096, PROT_READ | PROT_WRITE), 0);
  ::munmap(readable, 4096);
}

TEST_F(ModelFilesTest, a_file_that_changed_since_the_scan_is_refused) {
  write("up/weights.safetensors", upscaler_file());
  const out::FillSegment fill = order("up");
  ASSERT_NE(fill.layout, nullptr);
  {  // same length, later time
    const auto later = fs::last_write_time(fill.files[0].path) + std::chrono::seconds(5);
    fs::last_write_time(fill.files[0].path, later);
    const auto segment = fill_segment(fill);
    ASSERT_FALSE(segment.has_value());
    EXPECT_EQ(segment.error().code, ErrorCode::data_loss);
    EXPECT_NE(segment.error().message.find("changed since it was registered"), std::string::npos);
  }
  write("up/weights.safetensors", upscaler_file() + "x");
  EXPECT_EQ(fill_segment(fill).error().code, ErrorCode::data_loss);
  fs::remove(fill.files[0].path);
  EXPECT_EQ(fill_segment(fill).error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace lockstep::server
