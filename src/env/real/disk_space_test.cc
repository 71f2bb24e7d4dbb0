#include "env/real/disk_space.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

class DiskSpace : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = cat(fs::temp_directory_path().string(), "/lockstep_disk_XXXXXX");
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
    path = cat(folder, "/reserve");
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string folder;
  std::string path;
};

TEST_F(DiskSpace, a_folder_has_room_and_one_that_is_not_there_is_named) {
  const auto free = free_on_disk(folder);
  ASSERT_TRUE(free.has_value());
  EXPECT_GT(free->value, 0u);
  const auto none = free_on_disk(cat(folder, "/gone"));
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::unavailable);
  EXPECT_NE(none.error().message.find("/gone"), std::string::npos);
}

TEST_F(DiskSpace, a_reserve_takes_blocks_of_the_disk_and_gives_them_up_once) {
  DiskReserve reserve(path, 1_MiB);
  EXPECT_FALSE(reserve.held());
  EXPECT_FALSE(reserve.give_up());
  ASSERT_TRUE(reserve.take().has_value());
  EXPECT_TRUE(reserve.held());
  EXPECT_EQ(fs::file_size(path), 1u << 20);
  struct stat facts{};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_GE(facts.st_blocks * 512, 1 << 20) << "a hole keeps no room";
  EXPECT_TRUE(DiskReserve(path, 1_MiB).held()) << "from before a restart";
  EXPECT_FALSE(DiskReserve(path, 2_MiB).held()) << "it is smaller than what is wanted";
  EXPECT_TRUE(reserve.give_up());
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(reserve.give_up());
}

TEST_F(DiskSpace, one_of_no_bytes_is_never_there) {
  DiskReserve none(path, Bytes{});
  EXPECT_TRUE(none.take().has_value());
  EXPECT_FALSE(none.held());
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(DiskSpace, where_there_is_no_room_nothing_of_it_stays) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{64 << 10, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status taken = DiskReserve(path, 1_MiB).take();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().code, ErrorCode::resource_exhausted);
  EXPECT_NE(taken.error().message.find(path), std::string::npos);
  EXPECT_FALSE(fs::exists(path));
}

}  // namespace
}  // namespace lockstep::real
