#include "env/real/tls_link.h"

#include <array>
#include <deque>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include "base/text.h"
#include "env/real/blob_table.h"
#include "env/real/tls_connection.h"

namespace lockstep::real {

namespace {

using boost::system::error_code;

constexpr std::size_t unsent_max = 64u << 20;  // bytes; a peer that does not read for so long is lost

void append_named(std::string& out, const NamedBlob& blob) {
  out += blob.name;
  for (int i = 0; i < 8; ++i) out += static_cast<char>((blob.bytes >> (8 * i)) & 0xFF);
}

NamedBlob read_named(std::string_view bytes) {
  NamedBlob blob{std::string(bytes.substr(0, 32)), 0};
  for (int i = 7; i >= 0; --i) {
    blob.bytes = blob.bytes << 8 | static_cast<std::uint8_t>(bytes[32 + static_cast<std::size_t>(i)]);
  }
  return blob;
}

/// Everything a callback needs; it outlives the link that people hold.
class State : public std::enable_shared_from_this<State> {
 public:
  State(std::shared_ptr<TlsConnection> connection, BlobPort port, LinkHooks hooks)
      : connection_(std::move(connection)), port_(std::move(port)), hooks_(std::move(hooks)) {}

  void start() { read(); }

  void send(const Frame& frame, std::vector<SharedFd> descriptors) {
    if (over_) return;
    const auto header = encode_header(frame.header);
    Outgoing out;
    out.bytes.assign(reinterpret_cast<const char*>(header.data()), header.size());
    out.bytes += frame.body;
    unsent_ += out.bytes.size();
    const std::uint64_t number = ++frames_made_;
    out.number = number;
    out.ready = descriptors.empty();
    outgoing_.push_back(std::move(out));
    if (unsent_ > unsent_max) return close(cat("the other side does not read: ", unsent_, " bytes are unsent"));
    if (!descriptors.empty()) {
      port_.give(std::move(descriptors), [self = shared_from_this(), number](Result<std::vector<NamedBlob>> names) {
        self->named(number, std::move(names));
      });
    }
    write();
  }

  /// What waits for a blob's name counts too: it cannot be overtaken any more.
  bool takes_more() const { return unsent_ == 0; }

  void hold(bool held) {
    held_ = held;
    if (!held_ && !reading_ && !over_) read();
  }

  /// Nobody holds the link any more: nothing is called back.
  void abandon() {
    hooks_ = {};
    end();
  }

 private:
  struct Outgoing {
    std::string bytes;
    std::uint64_t number = 0;
    bool ready = false;  // its descriptors have names
  };

  void end() {
    if (std::exchange(over_, true)) return;
    error_code ignored;
    connection_->stream.lowest_layer().close(ignored);
    outgoing_.clear();
    port_.over();
  }

  void close(std::string reason) {
    if (over_) return;
    end();
    const auto hooks = std::exchange(hooks_, {});
    if (hooks.closed) hooks.closed(std::move(reason));
  }

  void named(std::uint64_t number, Result<std::vector<NamedBlob>> names) {
    if (over_) return;
    if (!names) return close(cat("the bytes beside a frame could not be given: ", names.error().message));
    for (Outgoing& each : outgoing_) {
      if (each.number != number) continue;
      for (const NamedBlob& blob : *names) append_named(each.bytes, blob);
      unsent_ += names->size() * named_blob_size;
      each.ready = true;
    }
    write();
  }

  void read() {
    if (held_) return;
    reading_ = true;
    connection_->stream.async_read_some(
        boost::asio::buffer(piece_), [self = shared_from_this()](const error_code& error, std::size_t got) {
          self->reading_ = false;
          if (self->over_) return;
          if (error) {
            const bool ended = error == boost::asio::error::eof || error == boost::asio::ssl::error::stream_truncated;
            return self->close(ended ? "the other side closed it" : cat("read failed: ", error.message()));
          }
          self->buffer_.append(self->piece_.data(), got);
          while (!self->over_ && self->deliver()) {
          }
          if (!self->over_) self->read();
        });
  }

  bool deliver() {
    if (buffer_.size() < frame_header_size) return false;
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(buffer_.data());
    const auto header = decode_header(std::span<const std::uint8_t, frame_header_size>(bytes, frame_header_size));
    if (!header) {
      close(header.error().message);
      return false;
    }
    const std::size_t names_at = frame_header_size + header->body_length;
    const std::size_t size = names_at + header->descriptors * named_blob_size;
    if (buffer_.size() < size) return false;
    Frame frame{*header, buffer_.substr(frame_header_size, header->body_length)};
    std::vector<NamedBlob> names;
    for (std::size_t at = names_at; at < size; at += named_blob_size) {
      names.push_back(read_named(std::string_view(buffer_).substr(at, named_blob_size)));
      if (!is_blob_name(names.back().name)) {
        close("a frame names a blob by what is no name");
        return false;
      }
    }
    buffer_.erase(0, size);
    std::vector<Fd> descriptors;
    if (!names.empty()) {
      auto taken = port_.take(names);
      if (!taken) {
        close(taken.error().message);
        return false;
      }
      descriptors = *std::move(taken);
    }
    const auto self = shared_from_this();  // the hook may drop the link
    const auto hook = hooks_.frame;
    hook(std::move(frame), std::move(descriptors));
    return true;
  }

  void write() {
    if (writing_ || over_ || outgoing_.empty() || !outgoing_.front().ready) return;
    // As much as is ready in one record or few: the cost of a small write is the system call.
    batch_.clear();
    while (!outgoing_.empty() && outgoing_.front().ready && batch_.size() < piece_.size()) {
      batch_ += outgoing_.front().bytes;
      outgoing_.pop_front();
    }
    writing_ = true;
    boost::asio::async_write(connection_->stream, boost::asio::buffer(batch_),
                             [self = shared_from_this()](const error_code& error, std::size_t sent) {
                               self->writing_ = false;
                               self->unsent_ -= std::min(self->unsent_, sent);
                               // An end is told by the reading side, after what the peer still sent was read.
                               if (error || self->over_) return;
                               self->write();
                               const auto drained = self->hooks_.drained;
                               if (self->unsent_ == 0 && drained) drained();
                             });
  }

  std::shared_ptr<TlsConnection> connection_;
  BlobPort port_;
  LinkHooks hooks_;
  bool over_ = false;
  bool writing_ = false;
  bool reading_ = false;
  bool held_ = false;
  std::array<char, 65536> piece_{};
  std::string buffer_;
  std::string batch_;
  std::deque<Outgoing> outgoing_;
  std::size_t unsent_ = 0;
  std::uint64_t frames_made_ = 0;
};

class TlsLink : public Link {
 public:
  explicit TlsLink(std::shared_ptr<State> state) : state_(std::move(state)) { state_->start(); }
  ~TlsLink() override { state_->abandon(); }
  void send(const Frame& frame, std::vector<SharedFd> descriptors) override {
    state_->send(frame, std::move(descriptors));
  }
  bool takes_more() override { return state_->takes_more(); }
  void hold(bool held) override { state_->hold(held); }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace

std::unique_ptr<Link> make_tls_link(std::shared_ptr<TlsConnection> connection, BlobPort port, LinkHooks hooks) {
  return std::make_unique<TlsLink>(std::make_shared<State>(std::move(connection), std::move(port), std::move(hooks)));
}

}  // namespace lockstep::real
