#include "journal/sqlite_log.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// A log as SQLite has one, and beside it what must be in it; nullopt is a byte that counts for nothing.
class LogFileTest : public testing::TestWithParam<bool> {
 protected:
  LogFileTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_log_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
    path_ = (folder_ / "journal.db-wal").string();
  }
  ~LogFileTest() override {
    close();
    fs::remove_all(folder_);
  }
  void SetUp() override {
    std::ofstream(folder_ / "journal.db").close();  // a log takes its rights from it
    ASSERT_NE(files_.name(), nullptr);
    vfs_ = sqlite3_vfs_find(files_.name());
    ASSERT_NE(vfs_, nullptr);
    memory_.resize(static_cast<std::size_t>(vfs_->szOsFile) / sizeof(std::max_align_t) + 1);
    open();
  }

  void open() {
    constexpr int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_WAL;
    ASSERT_EQ(vfs_->xOpen(vfs_, path_.c_str(), file(), flags, nullptr), SQLITE_OK);
  }
  void close() {
    if (file()->pMethods != nullptr) {
      EXPECT_EQ(file()->pMethods->xClose(file()), SQLITE_OK);
    }
    file()->pMethods = nullptr;
  }
  sqlite3_file* file() { return reinterpret_cast<sqlite3_file*>(memory_.data()); }

  void write(std::size_t at, std::string_view bytes) {
    ASSERT_EQ(
        file()->pMethods->xWrite(file(), bytes.data(), static_cast<int>(bytes.size()), static_cast<sqlite3_int64>(at)),
        SQLITE_OK);
    if (wanted_.size() < at + bytes.size()) wanted_.resize(at + bytes.size());
    std::ranges::copy(bytes, wanted_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  void sync() { ASSERT_EQ(file()->pMethods->xSync(file(), SQLITE_SYNC_NORMAL), SQLITE_OK); }

  void expect_wanted(std::string_view found, std::size_t at) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (at + i < wanted_.size() && wanted_[at + i]) {
        ASSERT_EQ(found[i], *wanted_[at + i]) << "byte " << at + i;
      }
    }
  }
  void expect_read(std::size_t at, std::size_t size) {
    std::string found(size, '\0');
    const int code =
        file()->pMethods->xRead(file(), found.data(), static_cast<int>(size), static_cast<sqlite3_int64>(at));
    ASSERT_TRUE(code == SQLITE_OK || code == SQLITE_IOERR_SHORT_READ) << code;
    expect_wanted(found, at);
  }
  /// What another process sees.
  std::string seen() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  fs::path folder_;
  std::string path_;
  LogFileSystem files_{nullptr, GetParam()};
  sqlite3_vfs* vfs_ = nullptr;
  std::vector<std::max_align_t> memory_ = std::vector<std::max_align_t>(64);
  std::vector<std::optional<char>> wanted_;
};

INSTANTIATE_TEST_SUITE_P(, LogFileTest, testing::Bool(),
                         [](const auto& each) { return each.param ? "past_the_page_cache" : "through_it"; });

TEST_P(LogFileTest, what_is_synced_is_in_the_file_and_what_is_not_is_read_all_the_same) {
  write(0, std::string(32, 'h'));
  write(32, std::string(24, 'f'));
  write(56, std::string(4096, 'p'));
  EXPECT_EQ(seen().size(), 0u);
  expect_read(30, 100);
  sync();
  expect_wanted(seen(), 0);
  write(4152, std::string(24, 'g'));
  sqlite3_int64 size = 0;
  ASSERT_EQ(file()->pMethods->xFileSize(file(), &size), SQLITE_OK);
  EXPECT_GE(size, 4176);
  close();
  expect_wanted(seen(), 0);
}

// Frames one behind the other, some of them twice; zeros far behind; the log anew; and reads and syncs in between.
TEST_P(LogFileTest, it_is_a_file_whatever_is_written) {
  constexpr std::size_t frame = 4120;
  for (unsigned seed = 1; seed <= 30; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random()) % limit; };
    const auto bytes = [&](std::size_t size) { return std::string(size, static_cast<char>('a' + below(26))); };
    std::size_t frames = 0;
    std::size_t uncommitted = 0;
    std::ranges::fill(wanted_, std::nullopt);
    write(0, bytes(32));
    for (int step = 0; step < 300; ++step) {
      switch (below(12)) {
        case 0:
          sync();
          uncommitted = frames;
          expect_wanted(seen(), 0);
          break;
        case 1: expect_read(below(frames * frame + 32), below(2 * frame) + 1); break;
        case 2:
          if (uncommitted < frames) {
            const std::size_t which = uncommitted + below(frames - uncommitted);
            const std::size_t from = below(frame);
            write(32 + which * frame + from, bytes(1 + below(frame - from)));
          }
          break;
        case 3: write(32 + (frames + 300 + below(10)) * frame, std::string(10 << 10, '\0')); break;
        case 4:
          if (below(8) != 0) break;
          std::ranges::fill(wanted_, std::nullopt);  // frames of an earlier round
          write(0, bytes(32));
          frames = uncommitted = 0;
          break;
        case 5:
          if (below(20) != 0) break;
          ASSERT_EQ(file()->pMethods->xTruncate(file(), static_cast<sqlite3_int64>(32 + frames * frame)), SQLITE_OK);
          wanted_.resize(32 + frames * frame);
          break;
        case 6:
          if (below(20) != 0) break;
          close();
          open();
          break;
        default: {  // one more; a block that is filled up may end behind it
          const std::size_t end = 32 + (frames + 1) * frame;
          write(32 + frames * frame, bytes(24));
          write(32 + frames * frame + 24, bytes(4096));
          for (std::size_t i = end; i < std::min(wanted_.size(), (end + 4095) / 4096 * 4096); ++i) wanted_[i].reset();
          ++frames;
        }
      }
      if (HasFatalFailure()) FAIL() << "seed " << seed << ", step " << step;
    }
  }
  close();
  expect_wanted(seen(), 0);
}

TEST_P(LogFileTest, more_than_is_gathered_at_once_is_written_before_the_sync) {
  write(0, std::string(32, 'h'));
  for (std::size_t i = 0; i < 200; ++i) write(32 + i * 4096, std::string(4096, static_cast<char>('a' + i % 26)));
  EXPECT_GT(seen().size(), 500u << 10);
  sync();
  expect_wanted(seen(), 0);
}

TEST_P(LogFileTest, only_the_log_is_written_in_blocks) {
  const std::string other = (folder_ / "journal.db").string();
  std::vector<std::max_align_t> memory(memory_.size());
  auto* const plain = reinterpret_cast<sqlite3_file*>(memory.data());
  constexpr int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB;
  ASSERT_EQ(vfs_->xOpen(vfs_, other.c_str(), plain, flags, nullptr), SQLITE_OK);
  ASSERT_EQ(plain->pMethods->xWrite(plain, "page", 4, 0), SQLITE_OK);
  EXPECT_EQ(fs::file_size(other), 4u);
  EXPECT_EQ(plain->pMethods->xClose(plain), SQLITE_OK);
}

// Where the file system can, the page cache has no part in it.
TEST_P(LogFileTest, the_log_is_opened_past_the_page_cache_when_it_is_asked_for) {
  const int can = ::open((folder_ / "probe").c_str(), O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (can >= 0) ::close(can);
  bool found = false;
  for (const auto& each : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (fs::read_symlink(each.path(), gone) != path_) continue;
    const int flags = ::fcntl(std::stoi(each.path().filename().string()), F_GETFL);
    found = found || (flags & O_DIRECT) != 0;
  }
  EXPECT_EQ(found, GetParam() && can >= 0);
}

TEST(LogFileSystem, has_no_name_when_there_is_none_below) {
  EXPECT_EQ(LogFileSystem("no such file system", false).name(), nullptr);
}

}  // namespace
}  // namespace lockstep
