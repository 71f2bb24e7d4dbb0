#pragma once

// What a script learns from a client sub-command without reading text.

#include "base/result.h"

namespace lockstep::cli {

enum class ExitCode : int {
  done = 0,
  failed = 1,
  usage = 2,  // the command line, or a value that the server refused
  not_found = 3,
  unavailable = 6,  // no server, or it is not ready
  blocked = 8,      // by the safety check
  exhausted = 10,   // not enough free: try again later
  interrupted = 130,
};

constexpr ExitCode exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::too_large: return ExitCode::usage;
    case ErrorCode::not_found: return ExitCode::not_found;
    case ErrorCode::unavailable: return ExitCode::unavailable;
    case ErrorCode::safety_blocked: return ExitCode::blocked;
    case ErrorCode::resource_exhausted: return ExitCode::exhausted;
    default: return ExitCode::failed;
  }
}

/// Prints "lockstep: <message>" on stderr.
ExitCode tell(const Error& error);

}  // namespace lockstep::cli
