// The workers' port on real sockets of this machine: handshakes, frames, and the bytes beside them.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/text.h"
#include "env/real/certificates.h"
#include "env/real/memory_file.h"
#include "env/real/reactor.h"
#include "env/real/tls_client.h"
#include "env/real/tls_listener.h"

namespace lockstep::real {
namespace {

namespace fs = std::filesystem;

/// A listener and whoever dials it, on one reactor that runs until the test has what it waits for.
class TlsLinkTest : public testing::Test {
 protected:
  TlsLinkTest() {
    std::string pattern = cat(testing::TempDir(), "tls-XXXXXX");
    folder_ = ::mkdtemp(pattern.data());
    CertificateOrder order;
    order.folder = folder_;
    order.workers = {"box", "other"};
    EXPECT_TRUE(make_certificates(order).has_value());
    listener_ =
        std::make_unique<TlsListener>(reactor_, *TlsContext::server(files("server")),
                                      TlsListener::Hooks{.arrived =
                                                             [this](const LinkFactory& make, const TlsPeer& peer) {
                                                               peer_ = peer.certificate_name;
                                                               server_ = make(server_hooks());
                                                               if (at_arrival_) at_arrival_();
                                                             },
                                                         .refused =
                                                             [this](const std::string&, const std::string& why) {
                                                               refused_ = why;
                                                               done();
                                                             }});
    const auto port = listener_->listen("127.0.0.1:0");
    EXPECT_TRUE(port.has_value());
    port_ = port.value_or(0);
  }
  ~TlsLinkTest() override {
    client_.reset();
    server_.reset();
    fs::remove_all(folder_);
  }

  TlsFiles files(const std::string& name) const {
    return {cat(folder_, "/", name, ".pem"), cat(folder_, "/", name, ".key"), cat(folder_, "/authority.pem")};
  }
  LinkHooks server_hooks() {
    return {.frame =
                [this](Frame frame, std::vector<Fd> descriptors) {
                  at_server_.push_back(std::move(frame));
                  for (Fd& each : descriptors) server_descriptors_.push_back(std::move(each));
                  if (at_server_.size() == wanted_) done();
                },
            .closed =
                [this](std::string reason) {
                  closed_ = std::move(reason);
                  done();
                }};
  }
  LinkHooks client_hooks() {
    return {.frame =
                [this](Frame frame, std::vector<Fd> descriptors) {
                  at_client_.push_back(std::move(frame));
                  for (Fd& each : descriptors) client_descriptors_.push_back(std::move(each));
                  if (at_client_.size() == wanted_) done();
                },
            .closed =
                [this](std::string reason) {
                  client_closed_ = std::move(reason);
                  done();
                }};
  }
  void dial(const TlsFiles& with, std::function<void()> then) {
    auto context = TlsContext::client(with);
    ASSERT_TRUE(context.has_value());
    dialer_ = *TlsDialer::make(reactor_, *context, cat("localhost:", port_));
    dialer_->dial([this, then = std::move(then)](Result<LinkFactory> made) {
      if (!made) {
        failure_ = made.error().message;
        return done();
      }
      client_ = (*made)(client_hooks());
      then();
    });
  }
  void done() { reactor_.stop(); }
  /// Until done(); a test that would hang fails instead.
  void run() {
    reactor_.arm("too long", Reactor::now() + seconds(30), [this] {
      ADD_FAILURE() << "it did not come";
      done();
    });
    reactor_.run();
    reactor_.disarm("too long");
  }
  static Frame frame(std::uint64_t sequence, std::string body, std::uint8_t descriptors = 0) {
    Frame out;
    out.header.body_length = static_cast<std::uint32_t>(body.size());
    out.header.type = 4;
    out.header.sequence = sequence;
    out.header.descriptors = descriptors;
    out.body = std::move(body);
    return out;
  }
  static SharedFd sealed(const std::string& text) {
    auto file = make_sealed("test", Bytes{text.size()}, [&](std::span<std::uint8_t> into) -> Status {
      std::copy(text.begin(), text.end(), into.begin());
      return {};
    });
    return share(*std::move(file));
  }
  static std::string text_of(const Fd& fd) {
    std::string out(size_of(fd.get())->value, '\0');
    EXPECT_EQ(::pread(fd.get(), out.data(), out.size(), 0), static_cast<ssize_t>(out.size()));
    return out;
  }
  static std::size_t open_descriptors() {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
  }

  Reactor reactor_;
  std::string folder_;
  std::uint16_t port_ = 0;
  std::unique_ptr<TlsListener> listener_;
  std::unique_ptr<TlsDialer> dialer_;
  std::unique_ptr<Link> server_;
  std::unique_ptr<Link> client_;
  std::function<void()> at_arrival_;
  std::string peer_;
  std::string refused_;
  std::string failure_;
  std::string closed_;
  std::string client_closed_;
  std::vector<Frame> at_server_;
  std::vector<Frame> at_client_;
  std::vector<Fd> server_descriptors_;
  std::vector<Fd> client_descriptors_;
  std::size_t wanted_ = 1;
};

TEST_F(TlsLinkTest, frames_arrive_in_order_and_the_certificate_names_the_worker) {
  wanted_ = 300;
  dial(files("box"), [this] {
    for (std::uint64_t i = 1; i <= 300; ++i) client_->send(frame(i, std::string(i * 37, 'x')), {});
  });
  run();
  EXPECT_EQ(peer_, "box");
  ASSERT_EQ(at_server_.size(), 300u);
  for (std::uint64_t i = 1; i <= 300; ++i) {
    EXPECT_EQ(at_server_[i - 1].header.sequence, i);
    EXPECT_EQ(at_server_[i - 1].body.size(), i * 37);
  }
}

TEST_F(TlsLinkTest, what_rides_with_a_frame_to_the_worker_is_there_when_it_is_waited_for) {
  const std::string large(3'000'000, 'm');
  at_arrival_ = [&] { server_->send(frame(1, "load", 2), {sealed("small"), sealed(large)}); };
  dial(files("box"), [] {});
  run();
  ASSERT_EQ(client_descriptors_.size(), 2u);
  // The blobs are served by the reactor, so it goes on while somebody waits.
  std::thread waits([this] {
    EXPECT_TRUE(wait_sealed(client_descriptors_[0].get()).has_value());
    EXPECT_TRUE(wait_sealed(client_descriptors_[1].get()).has_value());
    done();
  });
  run();
  waits.join();
  EXPECT_EQ(text_of(client_descriptors_[0]), "small");
  EXPECT_EQ(text_of(client_descriptors_[1]), large);
  EXPECT_FALSE(identity_of(client_descriptors_[1].get()).empty());
  EXPECT_EQ(listener_->blobs().size(), 0u);  // fetched: nobody keeps it
}

TEST_F(TlsLinkTest, what_rides_with_a_frame_of_the_worker_is_put_before_it) {
  const std::string large(2'000'000, 'p');
  wanted_ = 3;
  dial(files("box"), [&] {
    client_->send(frame(1, "before"), {});
    client_->send(frame(2, "result", 2), {sealed(large), sealed("")});
    client_->send(frame(3, "after"), {});
  });
  run();
  ASSERT_EQ(at_server_.size(), 3u);
  EXPECT_EQ(at_server_[1].body, "result");
  ASSERT_EQ(server_descriptors_.size(), 2u);
  EXPECT_EQ(text_of(server_descriptors_[0]), large);
  EXPECT_EQ(text_of(server_descriptors_[1]), "");
  EXPECT_FALSE(identity_of(server_descriptors_[0].get()).empty());
  EXPECT_EQ(listener_->blobs().size(), 0u);
}

TEST_F(TlsLinkTest, the_end_of_the_worker_drops_what_was_offered_to_it) {
  at_arrival_ = [&] {
    server_->send(frame(1, "load", 1), {sealed(std::string(100, 'x'))});
    client_.reset();
  };
  dial(files("box"), [] {});
  wanted_ = 1000;
  run();
  EXPECT_FALSE(closed_.empty());
  EXPECT_EQ(listener_->blobs().size(), 0u);
}

TEST_F(TlsLinkTest, a_certificate_of_another_authority_is_refused_by_both) {
  CertificateOrder order;
  order.folder = cat(folder_, "/elsewhere");
  order.workers = {"box"};
  ASSERT_TRUE(make_certificates(order).has_value());
  TlsFiles stranger{order.folder + "/box.pem", order.folder + "/box.key", cat(folder_, "/authority.pem")};
  dial(stranger, [] {});
  run();
  EXPECT_NE(refused_.find("unable to get local issuer certificate"), std::string::npos) << refused_;

  stranger.authority = order.folder + "/authority.pem";  // and it would not take this server for the right one
  dial(stranger, [] { ADD_FAILURE() << "it was let in"; });
  run();
  if (failure_.empty()) run();  // the listener's own refusal may be told first
  EXPECT_NE(failure_.find("certificate verify failed"), std::string::npos) << failure_;
}

TEST_F(TlsLinkTest, an_expired_certificate_is_refused_with_the_reason) {
  // Valid from five minutes before now until now: the shortest that can be ordered is a day, so it is made by hand.
  const std::string command =
      cat("cd ", folder_,
          " && openssl ecparam -name prime256v1 -genkey -noout -out old.key && "
          "openssl req -new -key old.key -subj /CN=box -out old.csr && openssl x509 -req -in "
          "old.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days -1 -out old.pem");
  if (std::system(cat("(", command, ") >/dev/null 2>&1").c_str()) != 0) GTEST_SKIP() << "openssl is not here";
  dial(files("old"), [] {});
  run();
  EXPECT_NE(refused_.find("certificate has expired"), std::string::npos) << refused_;
}

TEST_F(TlsLinkTest, a_server_under_another_name_is_not_taken) {
  auto context = TlsContext::client(files("box"));
  dialer_ = *TlsDialer::make(reactor_, *context, cat("127.0.0.2:", port_));
  dialer_->dial([this](Result<LinkFactory> made) {
    ASSERT_FALSE(made.has_value());
    failure_ = made.error().message;
    done();
  });
  run();
  EXPECT_FALSE(failure_.empty());
}

/// A connection of plain OpenSSL, to do what our own client would not. Returns what it was told.
void openssl_client(std::uint16_t port, const TlsFiles* files, int version_max, const std::string& request,
                    std::string& told) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, version_max);
  if (files != nullptr) {
    SSL_CTX_use_certificate_file(context, files->certificate.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, files->key.c_str(), SSL_FILETYPE_PEM);
  }
  const std::string protocol = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(protocol.data()),
                          static_cast<unsigned>(protocol.size()));
  SSL* const ssl = SSL_new(context);
  SSL_set_fd(ssl, socket.get());
  if (SSL_connect(ssl) == 1) {
    SSL_write(ssl, request.data(), static_cast<int>(request.size()));
    char bytes[4096];
    for (int got = 1; got > 0;) {
      got = SSL_read(ssl, bytes, sizeof bytes);
      if (got > 0) told.append(bytes, static_cast<std::size_t>(got));
    }
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
}

TEST_F(TlsLinkTest, nobody_comes_in_without_a_certificate_or_with_an_older_protocol) {
  std::string told;
  std::thread without([&] { openssl_client(port_, nullptr, TLS1_3_VERSION, "GET / HTTP/1.1\r\n\r\n", told); });
  run();
  without.join();
  EXPECT_EQ(told, "");
  EXPECT_NE(refused_.find("peer did not return a certificate"), std::string::npos) << refused_;
  const TlsFiles box = files("box");
  std::thread older([&] { openssl_client(port_, &box, TLS1_2_VERSION, "GET / HTTP/1.1\r\n\r\n", told); });
  run();
  older.join();
  EXPECT_EQ(told, "");
  EXPECT_NE(refused_.find("unsupported protocol"), std::string::npos) << refused_;
}

TEST_F(TlsLinkTest, a_connection_that_says_nothing_is_closed_when_its_time_is_up) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port_);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  run();
  EXPECT_EQ(refused_, "its handshake took too long");
}

TEST_F(TlsLinkTest, malformed_requests_for_blobs_get_a_4xx_and_nothing_is_kept) {
  const TlsFiles box = files("box");
  const std::string name(32, 'a');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"GET /blobs/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
      {cat("GET /blobs/", name, " HTTP/1.1\r\nHost: x\r\n\r\n"), "404"},  // nothing of this name
      {cat("DELETE /blobs/", name, " HTTP/1.1\r\nHost: x\r\n\r\n"), "405"},
      {cat("PUT /blobs/", name, " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"), "503"},  // no link is open
      {"nonsense\r\n\r\n", "400"},
      {cat("GET /blobs/", name, " HTTP/1.1\r\nX: ", std::string(5000, 'x'), "\r\n\r\n"), "400"},
  };
  for (const auto& [request, status] : cases) {
    std::string told;
    std::thread asks([&, this] {
      openssl_client(port_, &box, TLS1_3_VERSION, request, told);
      reactor_.post([this] { done(); });
    });
    run();
    asks.join();
    EXPECT_EQ(told.substr(0, 12), cat("HTTP/1.1 ", status)) << request;
  }
  EXPECT_EQ(listener_->blobs().size(), 0u);
}

TEST_F(TlsLinkTest, a_blob_is_for_its_own_worker_only) {
  std::string name;
  at_arrival_ = [&] { server_->send(frame(1, "load", 1), {sealed("secret weights")}); };
  // The link's first frame names the blob; another worker, with a good certificate, asks for it.
  BlobTable table;
  table.link_opened("box");
  name = table.offer("box", sealed("secret weights"));
  EXPECT_NE(table.offered("box", name), nullptr);
  EXPECT_EQ(table.offered("other", name), nullptr);
  EXPECT_FALSE(table.may_put("other", name, Bytes{1}).has_value());
  table.put("box", name, Fd(), Bytes{1});
  EXPECT_FALSE(table.claim("other", name).has_value());
  EXPECT_TRUE(table.claim("box", name).has_value());
  EXPECT_FALSE(table.claim("box", name).has_value());  // once
}

TEST_F(TlsLinkTest, what_one_worker_may_leave_here_is_bounded) {
  BlobTable table;
  table.link_opened("box");
  EXPECT_EQ(table.may_put("box", random_blob_name(), Bytes{BlobTable::put_max.value + 1}).error().code,
            ErrorCode::too_large);
  for (std::size_t i = 0; i < BlobTable::puts_count_max; ++i) table.put("box", random_blob_name(), Fd(), Bytes{1});
  EXPECT_EQ(table.may_put("box", random_blob_name(), Bytes{1}).error().code, ErrorCode::resource_exhausted);
  table.link_closed("box");
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.may_put("box", random_blob_name(), Bytes{1}).error().code, ErrorCode::unavailable);
}

TEST(FillingFile, who_waits_learns_that_it_is_whole_or_that_nobody_fills_it_any_more) {
  auto file = begin_filling("test", 5_KiB);
  ASSERT_TRUE(file.has_value());
  Status seen;
  std::thread waits([&] { seen = wait_sealed(file->reader.get()); });
  EXPECT_EQ(::pwrite(file->filler.get(), "hello", 5, 0), 5);
  EXPECT_TRUE(finish_filling(file->filler.get()).has_value());
  file->filler.reset();
  waits.join();
  EXPECT_TRUE(seen.has_value());
  EXPECT_FALSE(identity_of(file->reader.get()).empty());

  auto given_up = begin_filling("test", 5_KiB);
  ASSERT_TRUE(given_up.has_value());
  std::thread also([&] { seen = wait_sealed(given_up->reader.get()); });
  given_up->filler.reset();
  also.join();
  ASSERT_FALSE(seen.has_value());
  EXPECT_EQ(seen.error().code, ErrorCode::data_loss);
}

TEST(SplitAddress, a_host_and_a_port_are_needed) {
  EXPECT_EQ(split_address("gpu-box:7421")->first, "gpu-box");
  EXPECT_EQ(split_address("[::1]:7421")->first, "::1");
  for (const char* wrong : {"", "gpu-box", ":7421", "gpu-box:", "gpu-box:70000", "gpu-box:x", "::1:7421"}) {
    EXPECT_FALSE(split_address(wrong).has_value()) << wrong;
  }
}

TEST_F(TlsLinkTest, certificates_that_are_there_are_kept_and_bad_names_are_refused) {
  CertificateOrder order;
  order.folder = folder_;
  order.workers = {"box", "third"};
  const auto written = make_certificates(order);
  ASSERT_TRUE(written.has_value());
  EXPECT_EQ(*written, (std::vector<std::string>{cat(folder_, "/third.key"), cat(folder_, "/third.pem")}));
  EXPECT_EQ(fs::status(cat(folder_, "/third.key")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  for (const char* name : {"../x", "server", "authority", ""}) {
    order.workers = {name};
    EXPECT_FALSE(make_certificates(order).has_value()) << name;
  }
}

}  // namespace
}  // namespace lockstep::real
