#pragma once

// A small private authority for the workers' port: one command instead of a page of openssl calls. Keys are EC P-256;
// everything is PEM.

#include <string>
#include <vector>

#include "base/result.h"

namespace lockstep::real {

/// What to make. Files that are there already are kept, and the authority that is there signs: so the same folder
/// serves for one more worker later.
///
/// folder   authority.pem, authority.key, server.pem, server.key, <worker>.pem and <worker>.key are written here,
///          keys with mode 0600
/// hosts    names and addresses that workers dial the server by
/// workers  their names; a worker may enter under the name of its certificate only
/// days     they are valid for; the authority ten times as long
struct CertificateOrder {
  std::string folder;
  std::vector<std::string> hosts{"localhost", "127.0.0.1"};
  std::vector<std::string> workers;
  int days = 365;
};

/// The files that were written, in order. unavailable when one cannot be, already_exists never.
Result<std::vector<std::string>> make_certificates(const CertificateOrder& order);

}  // namespace lockstep::real
