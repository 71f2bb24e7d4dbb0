#include "env/real/frame_link.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace lockstep::real {

FrameLink::FrameLink(Reactor& reactor, Fd socket, Hooks hooks)
    : reactor_(reactor), socket_(std::move(socket)), hooks_(std::make_shared<Hooks>(std::move(hooks))) {
  ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
  // What the system has taken can not be overtaken any more either: as little as it allows, which is two or three
  // events. A large frame passes in pieces.
  const int send_buffer = 1;
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
  reading_ = reactor_.watch_readable(socket_.get(), [this] { read(); });
}

FrameLink::~FrameLink() {
  *alive_ = false;
  if (reading_ != 0) reactor_.unwatch(reading_);
  if (writing_ != 0) reactor_.unwatch(writing_);
}

void FrameLink::close(std::string reason) {
  if (!socket_) return;
  if (reading_ != 0) reactor_.unwatch(std::exchange(reading_, 0));
  if (writing_ != 0) reactor_.unwatch(std::exchange(writing_, 0));
  socket_.reset();
  const auto hooks = hooks_;
  hooks->closed(std::move(reason));
}

void FrameLink::hold(bool held) {
  if (!socket_ || held == (reading_ == 0)) return;
  if (held) return reactor_.unwatch(std::exchange(reading_, 0));
  reading_ = reactor_.watch_readable(socket_.get(), [this] { read(); });
}

void FrameLink::read() {
  const auto alive = alive_;
  // Bounded rounds: one busy peer must not starve the other links of this thread.
  for (int rounds = 0; rounds < 64 && *alive && socket_ && reading_ != 0; ++rounds) {
    char bytes[4096];  // about what the other side's system buffer holds
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * frame_descriptors_max)];
    iovec piece{bytes, sizeof bytes};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    for (cmsghdr* each = CMSG_FIRSTHDR(&message); got >= 0 && each != nullptr; each = CMSG_NXTHDR(&message, each)) {
      if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(each) + i * sizeof(int), sizeof fd);
        arrived_.emplace_back(fd);
      }
    }
    if (got < 0) return close(cat("read failed: ", std::strerror(errno)));
    if (got == 0) return close("the other side closed it");
    if ((message.msg_flags & MSG_CTRUNC) != 0) return close("more descriptors in one piece than a frame may carry");
    reader_.take({bytes, static_cast<std::size_t>(got)});
    while (*alive && socket_ && deliver()) {
    }
    if (*alive && socket_ && too_many_arrived()) return close("descriptors that no frame announced");
  }
}

/// Whole frames have taken theirs. What is left can only belong to the frame that has begun: anything more would be
/// kept, and never given to anybody, for as long as the link lives.
bool FrameLink::too_many_arrived() const {
  if (reader_.empty()) return !arrived_.empty();
  const auto begun = reader_.header();
  if (!begun) return false;
  return arrived_.size() > (*begun ? (*begun)->descriptors : frame_descriptors_max);
}

bool FrameLink::deliver() {
  auto next = reader_.next();
  if (!next) {
    close(next.error().message);
    return false;
  }
  if (!*next) return false;
  Frame frame = **std::move(next);
  if (arrived_.size() < frame.header.descriptors) {
    close("descriptors are missing");
    return false;
  }
  std::vector<Fd> descriptors;
  for (int i = 0; i < frame.header.descriptors; ++i) {
    descriptors.push_back(std::move(arrived_.front()));
    arrived_.pop_front();
  }
  if (too_many_arrived()) {
    close("descriptors that no frame announced");
    return false;
  }
  const auto hooks = hooks_;
  hooks->frame(std::move(frame), std::move(descriptors));
  return true;
}

void FrameLink::send(const Frame& frame, std::vector<SharedFd> descriptors) {
  if (!socket_) return;
  const auto header = encode_header(frame.header);
  std::string bytes(reinterpret_cast<const char*>(header.data()), header.size());
  bytes += frame.body;
  unsent_ += bytes.size();
  outgoing_.push_back({std::move(bytes), 0, std::move(descriptors)});
  if (unsent_ > unsent_max) return close(cat("the other side does not read: ", unsent_, " bytes are unsent"));
  if (writing_ == 0) write();
}

/// A Unix socket is writable when less than a quarter of its buffer is unread; with the smallest one, that is one
/// event.
bool FrameLink::takes_more() {
  if (!socket_ || writing_ != 0) return false;
  pollfd room{socket_.get(), POLLOUT, 0};
  if (::poll(&room, 1, 0) != 0) return true;  // an error is for whoever writes
  await_room();
  return false;
}

void FrameLink::await_room() {
  writing_ = reactor_.wait_writable(socket_.get(), [this] {
    reactor_.unwatch(std::exchange(writing_, 0));
    const auto alive = alive_;
    write();
    if (!*alive || !socket_ || unsent_ > 0) return;
    const auto hooks = hooks_;
    if (hooks->drained) hooks->drained();
  });
}

void FrameLink::write() {
  while (!outgoing_.empty()) {
    Outgoing& next = outgoing_.front();
    iovec piece{next.bytes.data() + next.sent, next.bytes.size() - next.sent};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * frame_descriptors_max)];
    if (next.sent == 0 && !next.descriptors.empty()) {
      const std::size_t size = next.descriptors.size() * sizeof(int);
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(size);
      cmsghdr* const head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(size);
      for (std::size_t i = 0; i < next.descriptors.size(); ++i) {
        const int fd = next.descriptors[i]->get();
        std::memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof fd);
      }
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return await_room();
    }
    // A peer that is gone is reported by the read side, after what it still sent has been read.
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
      outgoing_.clear();
      unsent_ = 0;
      return;
    }
    if (sent < 0) return close(cat("write failed: ", std::strerror(errno)));
    next.sent += static_cast<std::size_t>(sent);
    unsent_ -= static_cast<std::size_t>(sent);
    if (next.sent == next.bytes.size()) outgoing_.pop_front();
  }
}

}  // namespace lockstep::real
