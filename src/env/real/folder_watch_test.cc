#include "env/real/folder_watch.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

class FolderWatchTest : public testing::Test {
 protected:
  FolderWatchTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_watch_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~FolderWatchTest() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  /// Runs until the watch calls, or a limit that only a hang can reach.
  bool told_after(const std::function<void()>& change) {
    Reactor reactor;
    bool told = false;
    FolderWatch watch(reactor, folder_.string(), [&] {
      told = true;
      reactor.stop();
    });
    EXPECT_TRUE(watch.refresh().has_value());
    reactor.post(change);
    reactor.arm("limit", Reactor::now() + seconds(20), [&] { reactor.stop(); });
    reactor.run();
    return told;
  }

  fs::path folder_;
};

TEST_F(FolderWatchTest, a_new_file_a_change_below_and_a_deletion_are_told) {
  fs::create_directories(folder_ / "model" / "unet");
  EXPECT_TRUE(told_after([&] { std::ofstream(folder_ / "new.safetensors") << "x"; }));
  EXPECT_TRUE(told_after([&] { std::ofstream(folder_ / "model" / "unet" / "a.safetensors") << "x"; }));
  EXPECT_TRUE(told_after([&] { fs::remove(folder_ / "new.safetensors"); }));
}

TEST_F(FolderWatchTest, a_folder_that_is_not_there_is_an_error_with_its_name) {
  Reactor reactor;
  FolderWatch watch(reactor, (folder_ / "nowhere").string(), [] {});
  const Status status = watch.refresh();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::unavailable);
  EXPECT_NE(status.error().message.find("nowhere"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::real
