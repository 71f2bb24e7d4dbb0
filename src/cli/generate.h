#pragma once

// `lockstep generate`: ask, follow, download. The request is the server's from the moment it is accepted; this process
// only watches it, so losing sight of it (a restart of the server, a lost stream) is never a failure of the request.

#include <string>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/accept.h"

namespace lockstep::cli {

struct GenerateOptions {
  GenerateBody body;
  std::string file;  // empty: lockstep-<request id>-<image>.png
  bool json = false;
  bool no_wait = false;
};

/// The file of one image: with several, its number goes before the extension.
std::string file_name(const std::string& file, const RequestId& request, std::uint32_t index, std::uint32_t n);

ExitCode generate(const http::Address& address, const GenerateOptions& options);

}  // namespace lockstep::cli
