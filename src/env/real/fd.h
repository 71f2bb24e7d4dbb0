#pragma once

// A descriptor with one owner; SharedFd where several parts keep the same one open.

#include <unistd.h>

#include <memory>
#include <utility>

namespace lockstep::real {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

using SharedFd = std::shared_ptr<Fd>;
inline SharedFd share(Fd fd) { return std::make_shared<Fd>(std::move(fd)); }

}  // namespace lockstep::real
