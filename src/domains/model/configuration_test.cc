#include "domains/model/configuration.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep::model {
namespace {

TEST(Configuration, its_files_are_known_by_their_names) {
  for (const char* name : {"config.json", "merges.txt", "vocab.json", "spiece.model", "scheduler_config.json"}) {
    EXPECT_TRUE(is_configuration_file(name)) << name;
  }
  for (const char* name : {"a.safetensors", "README.md", ".hidden.json", "lockstep.json", "pytorch_model.bin",
                           "diffusion_pytorch_model.safetensors.index.json", "modeling.py", "json"}) {
    EXPECT_FALSE(is_configuration_file(name)) << name;
  }
}

TEST(Configuration, a_segment_has_its_files_at_multiples_of_256_as_documented) {
  const auto layout =
      lay_out_configuration({{"config.json", Bytes{2}}, {"empty.txt", Bytes{0}}, {"tokenizer/merges.txt", Bytes{300}}});
  ASSERT_TRUE(layout.has_value()) << layout.error().message;
  EXPECT_EQ(layout->contents_json, R"("files":{"config.json":{"offset":768,"bytes":2},)"
                                   R"("empty.txt":{"offset":1024,"bytes":0},)"
                                   R"("tokenizer/merges.txt":{"offset":1024,"bytes":300}})");
  EXPECT_EQ(layout->size, Bytes{1536});
  ASSERT_EQ(layout->pieces.size(), 3u);
  EXPECT_EQ(layout->pieces[2].from, 0u);
  EXPECT_EQ(layout->pieces[2].to, 1024u);
  EXPECT_EQ(layout->pieces[2].bytes_in_cache, 300u);
  const std::string header = segment_header(*layout, "tiny", "configuration", std::string(64, 'a'));
  EXPECT_EQ(header.size(), 768u);
  EXPECT_EQ(header.substr(8, 51), R"({"model":"tiny","component":"configuration","sha256)");
}

TEST(Configuration, a_header_has_room_for_the_longest_names) {
  std::vector<NamedFile> files;
  for (std::size_t i = 0; i < configuration_files_max; ++i) {
    files.push_back({cat(std::string(200, '"'), "/", 1000 + i, ".json"), 300_KiB});
  }
  const auto layout = lay_out_configuration(files);
  ASSERT_TRUE(layout.has_value()) << layout.error().message;
  const std::string name(128, 'm');
  EXPECT_EQ(segment_header(*layout, name, name, std::string(64, 'a')).size(), layout->pieces[0].to);
}

TEST(Configuration, too_many_files_or_bytes_are_refused_with_the_limit) {
  std::vector<NamedFile> files;
  for (std::size_t i = 0; i <= configuration_files_max; ++i) files.push_back({cat(1000 + i, ".txt"), Bytes{1}});
  const auto many = lay_out_configuration(files);
  ASSERT_FALSE(many.has_value());
  EXPECT_EQ(many.error().code, ErrorCode::too_large);
  EXPECT_EQ(many.error().message, "its configuration has 129 files (1000.txt and others); the limit is 128");
  files.pop_back();
  EXPECT_TRUE(lay_out_configuration(files).has_value());

  const auto large = lay_out_configuration({{"a.json", 1_MiB}, {"b.txt", 63_MiB}, {"c.json", 1_MiB}});
  ASSERT_FALSE(large.has_value());
  EXPECT_EQ(large.error().code, ErrorCode::too_large);
  EXPECT_EQ(large.error().message, cat("its configuration has ", to_text(65_MiB), " (b.txt ", to_text(63_MiB),
                                       "); the limit is ", to_text(64_MiB)));
  EXPECT_TRUE(lay_out_configuration({{"a.json", 1_MiB}, {"b.txt", 63_MiB}}).has_value());
}

TEST(Configuration, a_name_that_leaves_the_folder_is_refused) {
  for (const std::string name :
       {"../a.json", "a/../../b.json", "/a.json", "a//b.json", "./a.json", "", "a/", "..", "a/."}) {
    const auto layout = lay_out_configuration({{name, Bytes{1}}});
    ASSERT_FALSE(layout.has_value()) << name;
    EXPECT_EQ(layout.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(layout.error().message.find("is not below the model's folder"), std::string::npos);
  }
  EXPECT_FALSE(lay_out_configuration({{std::string("a\0b.json", 8), Bytes{1}}}).has_value());
  EXPECT_TRUE(lay_out_configuration({{"..a/b..json", Bytes{1}}}).has_value());
  EXPECT_NE(lay_out_configuration({{"a.json", Bytes{1}}, {"a.json", Bytes{1}}}).error().message.find("stands twice"),
            std::string::npos);
}

}  // namespace
}  // namespace lockstep::model
