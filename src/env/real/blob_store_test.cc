#include "env/real/blob_store.h"

#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/digest.h"

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

class BlobStoreTest : public testing::Test {
 protected:
  BlobStoreTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_blobs_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~BlobStoreTest() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  static std::size_t files_in(const fs::path& folder) {
    std::size_t count = 0;
    for (const auto& each : fs::recursive_directory_iterator(folder)) count += each.is_regular_file() ? 1 : 0;
    return count;
  }

  fs::path folder_;
};

TEST_F(BlobStoreTest, what_is_put_is_got_under_its_digest) {
  const BlobStore store(folder_.string());
  const std::string bytes("pixels\0and more", 15);
  const std::string name = sha256_hex(bytes);
  ASSERT_TRUE(store.put(bytes, name).has_value());
  EXPECT_EQ(*store.get(name), bytes);
  EXPECT_EQ(store.path_of(name, ".png"), (folder_ / name.substr(0, 2) / (name + ".png")).string());
}

TEST_F(BlobStoreTest, what_is_removed_is_gone_and_may_be_put_again) {
  const BlobStore store(folder_.string());
  const std::string bytes("\x89PNG\r\n\x1a\n", 8);
  const std::string name = sha256_hex(bytes);
  EXPECT_TRUE(store.remove(name).has_value()) << "there was nothing";
  ASSERT_TRUE(store.put(bytes, name).has_value());
  ASSERT_TRUE(store.remove(name).has_value());
  EXPECT_EQ(store.get(name).error().code, ErrorCode::not_found);
  EXPECT_EQ(files_in(folder_), 0u);
  ASSERT_TRUE(store.put(bytes, name).has_value());
  EXPECT_EQ(*store.get(name), bytes);
}

// Who put it may have been killed between the rename and the sync of the folder. That the sync is done is seen by what
// it needs, a descriptor; that it helps, by a power cut of tools/disk_faults.py.
TEST_F(BlobStoreTest, what_is_there_already_is_synced_again_before_it_is_told_of) {
  const BlobStore store(folder_.string());
  const std::string bytes = "pixels";
  const std::string name = sha256_hex(bytes);
  ASSERT_TRUE(store.put(bytes, name).has_value());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const Status again = store.put(bytes, name);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(again.has_value());
  EXPECT_NE(again.error().message.find("cannot sync the folder of " + store.path_of(name, "")), std::string::npos)
      << again.error().message;
  EXPECT_TRUE(store.put(bytes, name).has_value());
}

TEST_F(BlobStoreTest, a_file_has_the_suffix_of_its_format) {
  const BlobStore store(folder_.string());
  for (const auto& [bytes, suffix] : {std::pair(std::string("\x89PNG\r\n\x1a\n", 8), ".png"),
                                      std::pair(std::string("\xff\xd8\xff\xe0", 4), ".jpg"),
                                      std::pair(std::string("RIFF\4\0\0\0WEBP", 12), ".webp"),
                                      std::pair(std::string("text"), "")}) {
    const std::string name = sha256_hex(bytes);
    ASSERT_TRUE(store.put(bytes, name).has_value());
    EXPECT_TRUE(fs::exists(store.path_of(name, suffix))) << suffix;
    EXPECT_EQ(store.get(name).value_or("nothing"), bytes) << suffix;
  }
}

TEST_F(BlobStoreTest, putting_twice_is_putting_once) {
  const BlobStore store(folder_.string());
  const std::string name = sha256_hex("x");
  ASSERT_TRUE(store.put("x", name).has_value());
  ASSERT_TRUE(store.put("x", name).has_value());
  EXPECT_EQ(files_in(folder_), 1u);  // and nothing temporary beside it
}

TEST_F(BlobStoreTest, what_a_killed_process_had_begun_is_swept_away_and_nothing_else) {
  const BlobStore store(folder_.string());
  EXPECT_TRUE(store.sweep().has_value()) << "there was nothing";
  ASSERT_TRUE(store.put("kept", sha256_hex("kept")).has_value());
  const auto killed_in_a_put = [&] {
    const rlimit small{64 << 10, 64 << 10};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string much(1 << 20, 'x');
    (void)store.put(much, sha256_hex(much));
  };
  EXPECT_EXIT(killed_in_a_put(), testing::KilledBySignal(SIGXFSZ), "");
  ASSERT_EQ(files_in(folder_), 2u) << "nothing was begun";
  ASSERT_TRUE(store.sweep().has_value());
  EXPECT_EQ(files_in(folder_), 1u);
  EXPECT_EQ(*store.get(sha256_hex("kept")), "kept");
  ASSERT_TRUE(store.put("more", sha256_hex("more")).has_value());
}

TEST_F(BlobStoreTest, damage_is_noticed_on_reading) {
  const BlobStore store(folder_.string());
  const std::string name = sha256_hex("x");
  ASSERT_TRUE(store.put("x", name).has_value());
  std::ofstream(store.path_of(name, "")) << "y";
  const auto bytes = store.get(name);
  ASSERT_FALSE(bytes.has_value());
  EXPECT_EQ(bytes.error().code, ErrorCode::data_loss);
}

TEST_F(BlobStoreTest, what_was_never_put_is_not_found) {
  EXPECT_EQ(BlobStore(folder_.string()).get(sha256_hex("x")).error().code, ErrorCode::not_found);
}

TEST_F(BlobStoreTest, a_folder_that_cannot_be_written_is_an_error_with_its_path) {
  const fs::path file = folder_ / "file";
  std::ofstream(file) << "not a folder";
  const Status status = BlobStore(file.string()).put("x", sha256_hex("x"));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::unavailable);
  EXPECT_NE(status.error().message.find(file.string()), std::string::npos) << status.error().message;
}

TEST_F(BlobStoreTest, a_written_file_replaces_the_old_one_whole) {
  const std::string path = (folder_ / "config").string();
  ASSERT_TRUE(write_file(path, "a long first text", folder_.string()).has_value());
  ASSERT_TRUE(write_file(path, "short", folder_.string()).has_value());
  EXPECT_EQ(*read_file(path, 100), "short");
  EXPECT_EQ(files_in(folder_), 1u);
}

TEST_F(BlobStoreTest, a_file_over_the_limit_is_too_large) {
  const std::string path = (folder_ / "file").string();
  ASSERT_TRUE(write_file(path, "12345", folder_.string()).has_value());
  EXPECT_TRUE(read_file(path, 5).has_value());
  EXPECT_EQ(read_file(path, 4).error().code, ErrorCode::too_large);
}

}  // namespace
}  // namespace lockstep::real
