#include "env/real/path_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/text.h"
#include "env/real/frame_link.h"
#include "env/real/process.h"

namespace lockstep::real {

namespace {

constexpr int backlog = 64;
constexpr int accepts_per_turn = 16;  // a flood of connections must not starve the links

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::unavailable, cat("the path ", path, " has ", path.size(),
                                            " bytes; a socket's path may have ", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) { return reinterpret_cast<const sockaddr*>(&address); }

}  // namespace

Result<Fd> dial_path(const std::string& path) {
  const sockaddr_un address = LOCKSTEP_TRY(address_of(path));
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::connect(socket.get(), generic(address), sizeof address) != 0) {
    return fail(ErrorCode::unavailable, cat("cannot reach ", path, ": ", std::strerror(errno)));
  }
  return socket;
}

PathListener::PathListener(Reactor& reactor, std::string path,
                           std::function<void(const LinkFactory&, const PathPeer&)> arrived)
    : reactor_(reactor), path_(std::move(path)), arrived_(std::move(arrived)) {}

PathListener::~PathListener() {
  if (watch_ != 0) reactor_.unwatch(watch_);
  if (socket_) ::unlink(path_.c_str());
}

Status PathListener::listen() {
  const sockaddr_un address = LOCKSTEP_TRY(address_of(path_));
  if (dial_path(path_)) return fail(ErrorCode::unavailable, cat("another process listens at ", path_));
  struct stat there{};
  if (::lstat(path_.c_str(), &there) == 0 && !S_ISSOCK(there.st_mode)) {
    return fail(ErrorCode::unavailable, cat(path_, " is there and is no socket"));
  }
  ::unlink(path_.c_str());
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || ::bind(socket.get(), generic(address), sizeof address) != 0 || ::chmod(path_.c_str(), 0600) != 0 ||
      ::listen(socket.get(), backlog) != 0) {
    return fail(ErrorCode::unavailable, cat("cannot listen at ", path_, ": ", std::strerror(errno)));
  }
  socket_ = std::move(socket);
  watch_ = reactor_.watch_readable(socket_.get(), [this] { accept(); });
  return {};
}

void PathListener::accept() {
  for (int i = 0; i < accepts_per_turn; ++i) {
    auto socket = std::make_shared<Fd>(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!*socket) return;  // nobody is left, or no descriptor is: the next turn tries again
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(socket->get(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0) continue;
    const PathPeer peer{who.uid, who.pid, who.pid > 0 ? start_ticks_of(who.pid) : 0};
    arrived_(
        [this, socket](LinkHooks hooks) {
          return std::make_unique<FrameLink>(reactor_, std::move(*socket), std::move(hooks));
        },
        peer);
  }
}

}  // namespace lockstep::real
