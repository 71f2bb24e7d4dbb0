#include "env/real/blob_session.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <optional>

#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/text.h"
#include "env/real/memory_file.h"

namespace lockstep::real {

namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::uint32_t head_max = 4096;
constexpr std::chrono::seconds idle_max{30};  // without a byte in either direction
constexpr std::string_view folder = "/blobs/";

int status_of(const Error& error) { return error_facts(error.code).http_status; }

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<TlsConnection> connection, std::shared_ptr<BlobTable> blobs)
      : connection_(std::move(connection)), blobs_(std::move(blobs)), timer_(connection_->stream.get_executor()) {}

  void read_head() {
    parser_.emplace();
    parser_->header_limit(head_max);
    parser_->body_limit(BlobTable::put_max.value);
    wait_for_a_byte();
    http::async_read_header(connection_->stream, buffer_, *parser_,
                            [self = shared_from_this()](const error_code& error, std::size_t) {
                              self->timer_.cancel();
                              if (!error) return self->head_arrived();
                              // The other side has ended, or what it said was no HTTP: then it is told.
                              if (error.category() == http::make_error_code(http::error::bad_method).category() &&
                                  error != http::error::end_of_stream && error != http::error::partial_message) {
                                self->answer(400, error.message());
                              }
                            });
  }

 private:
  /// Ends the connection when nothing moves for too long.
  void wait_for_a_byte() {
    timer_.expires_after(idle_max);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (error) return;
      error_code ignored;
      self->connection_->stream.lowest_layer().close(ignored);
    });
  }

  void head_arrived() {
    const auto& head = parser_->get();
    const std::string target(head.target());
    name_ = target.starts_with(folder) ? target.substr(folder.size()) : "";
    if (!is_blob_name(name_)) return answer(404, "blobs are at /blobs/ and 32 hexadecimal digits");
    if (head.method() == http::verb::get) return serve();
    if (head.method() == http::verb::put) return receive();
    answer(405, "a blob can be fetched by GET and put by PUT");
  }

  // ---- GET ----------------------------------------------------------------------------------------------------------

  void serve() {
    source_ = blobs_->offered(connection_->peer, name_);
    const auto size = source_ == nullptr ? Result<Bytes>(fail(ErrorCode::not_found, "no blob of this name is for you"))
                                         : size_of(source_->get());
    if (!size) return answer(status_of(size.error()), size.error().message);
    left_ = size->value;
    at_ = 0;
    response_.emplace();
    response_->result(http::status::ok);
    response_->set(http::field::content_type, "application/octet-stream");
    response_->content_length(left_);
    response_->keep_alive(parser_->get().keep_alive());
    response_->body().data = nullptr;
    response_->body().more = left_ > 0;
    serializer_.emplace(*response_);
    http::async_write_header(connection_->stream, *serializer_,
                             [self = shared_from_this()](const error_code& error, std::size_t) {
                               if (!error) self->serve_more();
                             });
  }

  void serve_more() {
    if (left_ == 0) {
      blobs_->taken(connection_->peer, name_);
      source_.reset();
      return next();
    }
    const ssize_t got =
        ::pread(source_->get(), piece_.data(), std::min<std::size_t>(piece_.size(), left_), static_cast<off_t>(at_));
    if (got <= 0) return;  // the promised length cannot be kept: the end of the connection tells it
    at_ += static_cast<std::uint64_t>(got);
    left_ -= static_cast<std::uint64_t>(got);
    response_->body().data = piece_.data();
    response_->body().size = static_cast<std::size_t>(got);
    response_->body().more = left_ > 0;
    wait_for_a_byte();
    http::async_write(connection_->stream, *serializer_,
                      [self = shared_from_this()](const error_code& error, std::size_t) {
                        self->timer_.cancel();
                        // need_buffer: this piece is sent, and it was not the last.
                        if (!error || error == http::error::need_buffer) self->serve_more();
                      });
  }

  // ---- PUT ----------------------------------------------------------------------------------------------------------

  void receive() {
    const Bytes announced{parser_->content_length().value_or(0)};
    if (const Status may = blobs_->may_put(connection_->peer, name_, announced); !may) {
      return answer(status_of(may.error()), may.error().message);
    }
    target_ = Fd(::memfd_create("lockstep:blob", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!target_) return answer(503, "no memory for it");
    at_ = 0;
    receive_more();
  }

  void receive_more() {
    if (parser_->is_done()) return received();
    parser_->get().body().data = piece_.data();
    parser_->get().body().size = piece_.size();
    wait_for_a_byte();
    http::async_read(connection_->stream, buffer_, *parser_,
                     [self = shared_from_this()](const error_code& error, std::size_t) {
                       self->timer_.cancel();
                       if (error == http::error::body_limit) {
                         return self->answer(413, cat("a blob has at most ", to_text(BlobTable::put_max)));
                       }
                       if (error && error != http::error::need_buffer) return;  // it ended: what was sent is dropped
                       self->keep(self->piece_.size() - self->parser_->get().body().size);
                     });
  }

  void keep(std::size_t got) {
    std::size_t kept = 0;
    while (kept < got) {
      const ssize_t wrote = ::pwrite(target_.get(), piece_.data() + kept, got - kept, static_cast<off_t>(at_ + kept));
      if (wrote <= 0) return answer(503, "no memory for it");
      kept += static_cast<std::size_t>(wrote);
    }
    at_ += got;
    receive_more();
  }

  void received() {
    if (const Status may = blobs_->may_put(connection_->peer, name_, Bytes{at_}); !may) {
      return answer(status_of(may.error()), may.error().message);
    }
    constexpr int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    if (::fcntl(target_.get(), F_ADD_SEALS, seals) != 0) return answer(500, "it cannot be sealed");
    blobs_->put(connection_->peer, name_, std::move(target_), Bytes{at_});
    answer(201, "");
  }

  // ---- the end of one request ---------------------------------------------------------------------------------------

  void answer(int status, const std::string& sentence) {
    const bool good = status < 300;
    text_.emplace(static_cast<http::status>(status), 11, sentence);
    text_->set(http::field::content_type, "text/plain; charset=utf-8");
    // What is left of a refused request is not read; so the connection cannot go on.
    text_->keep_alive(good && parser_->get().keep_alive());
    text_->prepare_payload();
    wait_for_a_byte();
    http::async_write(connection_->stream, *text_,
                      [self = shared_from_this(), good](const error_code& error, std::size_t) {
                        self->timer_.cancel();
                        if (!error && good) return self->next();
                        if (!error) self->end();
                      });
  }

  void next() {
    if (parser_->get().keep_alive()) return read_head();
    end();
  }

  void end() {
    wait_for_a_byte();
    connection_->stream.async_shutdown([self = shared_from_this()](const error_code&) { self->timer_.cancel(); });
  }

  std::shared_ptr<TlsConnection> connection_;
  std::shared_ptr<BlobTable> blobs_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_{head_max + (64u << 10)};
  std::optional<http::request_parser<http::buffer_body>> parser_;
  std::optional<http::response<http::buffer_body>> response_;
  std::optional<http::response_serializer<http::buffer_body>> serializer_;
  std::optional<http::response<http::string_body>> text_;
  std::array<char, 256u << 10> piece_{};
  std::string name_;
  SharedFd source_;
  Fd target_;
  std::uint64_t at_ = 0;
  std::uint64_t left_ = 0;
};

}  // namespace

void serve_blobs(std::shared_ptr<TlsConnection> connection, std::shared_ptr<BlobTable> blobs) {
  std::make_shared<Session>(std::move(connection), std::move(blobs))->read_head();
}

}  // namespace lockstep::real
