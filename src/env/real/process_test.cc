#include "env/real/process.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

class ProcessTest : public testing::Test {
 protected:
  ProcessTest() {
    std::string name = (fs::temp_directory_path() / "lockstep_process_XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~ProcessTest() override { fs::remove_all(folder_); }
  void SetUp() override { ASSERT_FALSE(folder_.empty()); }

  SpawnRequest shell(const std::string& script, Fd lock) const {
    SpawnRequest request;
    request.command = {"/bin/sh", "-c", script};
    request.link = null();
    request.lock = std::move(lock);
    request.life_lines = {null(), null()};
    request.log_path = log_path();
    return request;
  }
  static Fd null() { return Fd(::open("/dev/null", O_RDWR | O_CLOEXEC)); }
  std::string log_path() const { return (folder_ / "log").string(); }
  std::string lock_path() const { return (folder_ / "lock").string(); }
  std::string log() const {
    std::ostringstream text;
    text << std::ifstream(log_path()).rdbuf();
    return text.str();
  }
  static Child started(Result<Child> child) {
    EXPECT_TRUE(child.has_value()) << (child ? "" : child.error().message);
    return child ? *std::move(child) : Child{};
  }

  fs::path folder_;
};

TEST_F(ProcessTest, an_ended_child_is_reaped_with_its_status_and_its_words) {
  SpawnRequest request = shell("echo out; echo err >&2; exit 7", null());
  const Child child = started(spawn(std::move(request)));
  ASSERT_GT(child.pid, 0);
  EXPECT_EQ(reap(child), "exit status 7");
  EXPECT_EQ(log(), "out\nerr\n");
  EXPECT_EQ(tail_of(log_path(), 1), "    err\n");
}

TEST_F(ProcessTest, a_killed_child_is_reaped_with_its_signal) {
  const Child child = started(spawn(shell("exec sleep 1000", null())));
  ASSERT_GT(child.pid, 0);
  EXPECT_NE(start_ticks_of(child.pid), 0u);
  EXPECT_EQ(start_ticks_of(child.pid), child.start_ticks);
  pollfd handle{child.handle.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&handle, 1, 0), 0);  // it lives
  kill_child(child);
  EXPECT_EQ(::poll(&handle, 1, -1), 1);
  EXPECT_EQ(reap(child), "signal 9 (Killed)");
  EXPECT_EQ(start_ticks_of(child.pid), 0u);
  kill_child(child);  // a no-op now
}

// The proof of death: only a living process can hold the lock.
TEST_F(ProcessTest, the_lock_is_held_while_the_child_lives_and_free_after_its_death) {
  auto lock = try_lock(lock_path());
  ASSERT_TRUE(lock.has_value());
  ASSERT_TRUE(static_cast<bool>(*lock));
  const Child child = started(spawn(shell("exec sleep 1000", *std::move(lock))));
  ASSERT_GT(child.pid, 0);
  const auto while_alive = try_lock(lock_path());
  ASSERT_TRUE(while_alive.has_value());
  EXPECT_FALSE(static_cast<bool>(*while_alive));
  kill_child(child);
  reap(child);
  const auto after = try_lock(lock_path());
  ASSERT_TRUE(after.has_value());
  EXPECT_TRUE(static_cast<bool>(*after));
}

TEST_F(ProcessTest, a_lock_in_a_folder_that_is_not_there_is_an_error_and_no_proof) {
  const auto lock = try_lock((folder_ / "nowhere" / "lock").string());
  ASSERT_FALSE(lock.has_value());
  EXPECT_EQ(lock.error().code, ErrorCode::unavailable);
}

TEST_F(ProcessTest, the_child_gets_its_descriptors_and_none_of_ours) {
  const std::string out = (folder_ / "mine").string();
  const Fd low(::open(out.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  // As a socket that was just accepted, and above what the child gets, which would hide it.
  const Fd unmarked(::fcntl(low.get(), F_DUPFD, 50));
  ASSERT_TRUE(static_cast<bool>(unmarked));
  const Child child = started(spawn(shell("ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'", null())));
  ASSERT_GT(child.pid, 0);
  EXPECT_EQ(reap(child), "exit status 0");
  EXPECT_NE(log().find("3 /dev/null"), std::string::npos) << log();
  EXPECT_NE(log().find("4 /dev/null"), std::string::npos) << log();
  EXPECT_EQ(log().find(out), std::string::npos) << log();
}

TEST_F(ProcessTest, the_environment_is_the_parents_with_the_requests_on_top) {
  SpawnRequest request = shell("echo \"$HOME|$LOCKSTEP_TEST\"", null());
  request.environment = {"HOME=/elsewhere", "LOCKSTEP_TEST=yes"};
  const Child child = started(spawn(std::move(request)));
  ASSERT_GT(child.pid, 0);
  reap(child);
  EXPECT_EQ(log(), "/elsewhere|yes\n");
}

TEST_F(ProcessTest, a_command_that_does_not_exist_is_an_error_now) {
  SpawnRequest request = shell("", null());
  request.command = {(folder_ / "no_such_program").string()};
  const auto child = spawn(std::move(request));
  ASSERT_FALSE(child.has_value());
  EXPECT_EQ(child.error().code, ErrorCode::unavailable);
  EXPECT_NE(child.error().message.find("no_such_program"), std::string::npos) << child.error().message;
}

TEST_F(ProcessTest, no_process_has_no_start) { EXPECT_EQ(start_ticks_of(999'999'999), 0u); }

}  // namespace
}  // namespace lockstep::real
