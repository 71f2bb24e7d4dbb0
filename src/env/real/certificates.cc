#include "env/real/certificates.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "base/text.h"
#include "env/real/fd.h"

namespace lockstep::real {

namespace {

namespace fs = std::filesystem;

template <class T, void (*Free)(T*)>
struct Freed {
  void operator()(T* what) const { Free(what); }
};
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509, X509_free>>;
using File = std::unique_ptr<std::FILE, decltype([](std::FILE* file) { std::fclose(file); })>;

constexpr int authority_factor = 10;  // it outlives what it signs
constexpr long seconds_a_day = 86'400;

struct Pair {
  Key key;
  Certificate certificate;
};

Error cannot(std::string_view what, const std::string& path) {
  return fail(ErrorCode::unavailable, cat("cannot ", what, " ", path, ": ", std::strerror(errno)));
}

Status add_extension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Freed<X509_EXTENSION, X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return fail(ErrorCode::invalid_argument, cat("\"", shortened(value), "\" cannot stand in a certificate"));
  }
  return {};
}

/// `alternatives`: "DNS:...,IP:..."; empty for the authority, which signs itself when `signer` is nullptr.
Result<Pair> make_pair(const std::string& name, const std::string& alternatives, const char* purpose, int days,
                       const Pair* signer) {
  Pair out{Key(EVP_EC_gen("P-256")), Certificate(X509_new())};
  X509* const made = out.certificate.get();
  std::array<unsigned char, 16> serial{};
  RAND_bytes(serial.data(), static_cast<int>(serial.size()));
  serial[0] &= 0x7F;  // a positive number
  const std::unique_ptr<BIGNUM, Freed<BIGNUM, BN_free>> number(
      BN_bin2bn(serial.data(), static_cast<int>(serial.size()), nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(made));
  X509_set_version(made, X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(made), -300);  // clocks of two machines differ a little
  X509_gmtime_adj(X509_getm_notAfter(made), days * seconds_a_day);
  X509_set_pubkey(made, out.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()), -1, 0);
  X509* const issuer = signer == nullptr ? made : signer->certificate.get();
  X509_set_issuer_name(made, X509_get_subject_name(issuer));
  LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_subject_key_identifier, "hash"));
  if (signer == nullptr) {
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_key_usage, "critical,keyCertSign,cRLSign"));
  } else {
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_authority_key_identifier, "keyid"));
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_basic_constraints, "critical,CA:FALSE"));
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_ext_key_usage, purpose));
    LOCKSTEP_TRY_STATUS(add_extension(made, issuer, NID_subject_alt_name, alternatives));
  }
  EVP_PKEY* const with = signer == nullptr ? out.key.get() : signer->key.get();
  if (X509_sign(made, with, EVP_sha256()) == 0) return fail(ErrorCode::internal, "a certificate cannot be signed");
  return out;
}

Status write_pair(const Pair& pair, const std::string& stem, std::vector<std::string>& written) {
  const auto open = [](const std::string& path, mode_t mode) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return File(fd < 0 ? nullptr : ::fdopen(fd, "w"));
  };
  const std::string key_path = stem + ".key";
  const std::string path = stem + ".pem";
  const File key = open(key_path, 0600);
  if (key == nullptr || PEM_write_PrivateKey(key.get(), pair.key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return cannot("write", key_path);
  }
  written.push_back(key_path);
  const File certificate = open(path, 0644);
  if (certificate == nullptr || PEM_write_X509(certificate.get(), pair.certificate.get()) != 1) {
    return cannot("write", path);
  }
  written.push_back(path);
  return {};
}

Result<Pair> read_pair(const std::string& stem) {
  const File key(std::fopen((stem + ".key").c_str(), "re"));
  const File certificate(std::fopen((stem + ".pem").c_str(), "re"));
  if (key == nullptr || certificate == nullptr) return cannot("read", stem);
  Pair out{Key(PEM_read_PrivateKey(key.get(), nullptr, nullptr, nullptr)),
           Certificate(PEM_read_X509(certificate.get(), nullptr, nullptr, nullptr))};
  if (out.key == nullptr || out.certificate == nullptr) {
    return fail(ErrorCode::data_loss, cat(stem, ".pem and ", stem, ".key are no certificate and key"));
  }
  return out;
}

std::string alternatives_of(const std::vector<std::string>& hosts) {
  std::string out;
  for (const std::string& host : hosts) {
    std::array<unsigned char, sizeof(in6_addr)> address{};
    const bool numeric = ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
                         ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
    out += cat(out.empty() ? "" : ",", numeric ? "IP:" : "DNS:", host);
  }
  return out;
}

}  // namespace

Result<std::vector<std::string>> make_certificates(const CertificateOrder& order) {
  std::vector<std::string> written;
  for (const std::string& worker : order.workers) {
    if (!is_plain_name(worker) || worker == "authority" || worker == "server") {
      return fail(ErrorCode::invalid_argument, cat("\"", shortened(worker), "\" cannot be a worker's name here"));
    }
  }
  if (order.hosts.empty() || order.days < 1 || order.days > 3650) {
    return fail(ErrorCode::invalid_argument, "at least one host, and 1 to 3650 days, are needed");
  }
  std::error_code error;
  fs::create_directories(order.folder, error);
  const auto stem = [&](const std::string& name) { return cat(order.folder, "/", name); };
  const auto there = [&](const std::string& name) { return fs::exists(stem(name) + ".pem"); };
  if (!there("authority")) {
    const Pair made =
        LOCKSTEP_TRY(make_pair("lockstep workers' authority", "", nullptr, order.days * authority_factor, nullptr));
    LOCKSTEP_TRY_STATUS(write_pair(made, stem("authority"), written));
  }
  const Pair authority = LOCKSTEP_TRY(read_pair(stem("authority")));
  if (!there("server")) {
    const Pair made =
        LOCKSTEP_TRY(make_pair("lockstep", alternatives_of(order.hosts), "serverAuth", order.days, &authority));
    LOCKSTEP_TRY_STATUS(write_pair(made, stem("server"), written));
  }
  for (const std::string& worker : order.workers) {
    if (there(worker)) continue;
    const Pair made = LOCKSTEP_TRY(make_pair(worker, cat("DNS:", worker), "clientAuth", order.days, &authority));
    LOCKSTEP_TRY_STATUS(write_pair(made, stem(worker), written));
  }
  return written;
}

}  // namespace lockstep::real
