#include "env/real/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>

#include <boost/asio/ssl/context.hpp>

#include "base/text.h"
#include "env/real/tls_stream.h"

namespace lockstep::real {

namespace {

namespace ssl = boost::asio::ssl;

std::string as_text(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(ASN1_STRING_length(text))};
}

/// Takes the first of our protocols that the client offers; a client that offers none of them is refused.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* length, const unsigned char* offered,
                    unsigned int size, void*) {
  for (unsigned int at = 0; at < size;) {
    const std::string_view name(reinterpret_cast<const char*>(offered + at + 1), offered[at]);
    if (name == alpn_link || name == alpn_http) {
      *out = offered + at + 1;
      *length = offered[at];
      return SSL_TLSEXT_ERR_OK;
    }
    at += 1u + offered[at];
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<ssl::context> context) : context_(std::move(context)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::make(const TlsFiles& files, bool serves) {
  auto context = std::make_unique<ssl::context>(serves ? ssl::context::tls_server : ssl::context::tls_client);
  SSL_CTX* const raw = context->native_handle();
  SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);  // a certificate is looked at for every connection
  SSL_CTX_set_num_tickets(raw, 0);
  const auto wrong = [](std::string_view what, const std::string& path, const boost::system::error_code& error) {
    return fail(ErrorCode::invalid_argument, cat("the ", what, " ", path, " cannot be used: ", error.message()));
  };
  boost::system::error_code error;
  context->use_certificate_chain_file(files.certificate, error);
  if (error) return wrong("certificate", files.certificate, error);
  context->use_private_key_file(files.key, ssl::context::pem, error);
  if (error) return wrong("key", files.key, error);
  context->load_verify_file(files.authority, error);
  if (error) return wrong("authority", files.authority, error);
  context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  if (serves) SSL_CTX_set_alpn_select_cb(raw, choose_protocol, nullptr);
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(context)));
}

Result<std::shared_ptr<TlsContext>> TlsContext::server(const TlsFiles& files) { return make(files, true); }
Result<std::shared_ptr<TlsContext>> TlsContext::client(const TlsFiles& files) { return make(files, false); }

std::string peer_name(TlsStream& stream) {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get1_peer_certificate(stream.native_handle()),
                                                                &X509_free);
  if (certificate == nullptr) return {};
  std::string name;
  auto* const names =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names) && name.empty(); ++i) {
    const GENERAL_NAME* const each = sk_GENERAL_NAME_value(names, i);
    if (each->type == GEN_DNS) name = as_text(each->d.dNSName);
  }
  if (names != nullptr) GENERAL_NAMES_free(names);
  if (!name.empty()) return name;
  X509_NAME* const subject = X509_get_subject_name(certificate.get());
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  return at < 0 ? "" : as_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

std::string agreed_protocol(TlsStream& stream) {
  const unsigned char* name = nullptr;
  unsigned int length = 0;
  SSL_get0_alpn_selected(stream.native_handle(), &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

std::string handshake_failure(TlsStream& stream, const boost::system::error_code& error) {
  const long verdict = SSL_get_verify_result(stream.native_handle());
  if (verdict == X509_V_OK) return error.message();
  return cat(error.message(), ": ", X509_verify_cert_error_string(verdict));
}

void offer_protocol(TlsStream& stream, std::string_view protocol) {
  std::string wire(1, static_cast<char>(protocol.size()));
  wire += protocol;
  SSL_set_alpn_protos(stream.native_handle(), reinterpret_cast<const unsigned char*>(wire.data()),
                      static_cast<unsigned int>(wire.size()));
}

}  // namespace lockstep::real
