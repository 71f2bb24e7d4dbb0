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
  std::string file;  // empty: lockstep-<request id>-<image> and the suffix of the format
  std::string key;   // Idempotency-Key; empty: none
  bool json = false;
  bool no_wait = false;
};

/// The file of one image: with several, its number goes before the extension.
/// format: of the image; another name than those of base/image_header.h gives no suffix.
std::string file_name(const std::string& file, const RequestId& request, std::uint32_t index, std::uint32_t n,
                      std::string_view format = "png");

/// The format that is asked for: the one that is named, else what the extension of `file` says, else nothing. A file
/// whose extension says another format than the one named is refused. invalid_argument.
Result<std::optional<std::string>> format_to_ask(const std::optional<std::string>& named, const std::string& file);

ExitCode generate(const http::Address& address, GenerateOptions options);

}  // namespace lockstep::cli
