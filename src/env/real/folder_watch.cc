#include "env/real/folder_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/text.h"

namespace lockstep::real {

namespace fs = std::filesystem;

FolderWatch::FolderWatch(Reactor& reactor, std::string folder, std::function<void()> changed)
    : reactor_(reactor), folder_(std::move(folder)), changed_(std::move(changed)) {}

FolderWatch::~FolderWatch() {
  if (watch_ != 0) reactor_.unwatch(watch_);
}

Status FolderWatch::refresh() {
  const auto failed = [&](const std::string& what) {
    return fail(ErrorCode::unavailable, cat("cannot watch ", what, ": ", std::strerror(errno)));
  };
  if (!queue_) {
    queue_ = Fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!queue_) return failed(folder_);
    watch_ = reactor_.watch_readable(queue_.get(), [this] { read_events(); });
  }
  constexpr std::uint32_t events = IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                                   IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
  // Watching a folder again changes nothing, so that each refresh may go over all of them.
  const auto watch = [&](const fs::path& path) { return ::inotify_add_watch(queue_.get(), path.c_str(), events) >= 0; };
  if (!watch(folder_)) return failed(folder_);
  std::error_code error;
  for (const auto& each : fs::directory_iterator(folder_, error)) {
    std::error_code ignored;
    if (!each.is_directory(ignored)) continue;
    if (!watch(each.path()) && errno != ENOENT) return failed(each.path().string());
    for (const auto& below : fs::directory_iterator(each.path(), ignored)) {
      if (!below.is_directory(ignored)) continue;
      if (!watch(below.path()) && errno != ENOENT) return failed(below.path().string());
    }
  }
  return {};
}

void FolderWatch::read_events() {
  alignas(inotify_event) std::array<char, 16384> buffer;
  bool any = false;
  while (::read(queue_.get(), buffer.data(), buffer.size()) > 0) any = true;
  if (any) changed_();
}

}  // namespace lockstep::real
