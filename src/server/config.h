#pragma once

// Configuration: lockstep.toml, then the command line. Every key has a default; an unknown or mistyped key is refused
// with its place. docs/configuration.md.

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "domains/model/dtype.h"
#include "env/real/tls_context.h"
#include "http/server.h"
#include "orchestrator/settings.h"

namespace lockstep::server {

struct Config {
  std::string data_dir = "lockstep-data";
  std::string models_dir = "models";
  http::ServerSettings http;
  Settings core;
  /// The command of a worker process; it gets the link as descriptor 3.
  std::vector<std::string> worker_command;
  /// "NAME=value" for worker processes.
  std::vector<std::string> worker_environment;
  /// How long a worker that lost its orchestrator looks for the next one; 0: it ends at once.
  Nanos reconnect = seconds(30);
  /// "host:port" for workers of other machines, over TLS; empty: there is no such port.
  std::string worker_listen;
  real::TlsFiles worker_tls;
  model::CacheDtype cache_dtype = model::CacheDtype::as_is;  // what models become in the cache
  std::size_t pool_threads = 2;
  Bytes disk_reserve = 64_MiB;      // set aside on the data directory's disk; 0: nothing is
  Bytes worker_log_limit = 16_MiB;  // of one worker's log; one predecessor of the same size is kept
  std::string log_level = "info";
};

/// The defaults: two cpu workers of 4 GiB each, Python from the project's .venv where there is one.
Config default_config();

/// `path` over the defaults. not_found when the file is missing, invalid_argument with file, line and key otherwise.
Result<Config> read_config(const std::string& path);

/// The folder that holds python/lockstep: LOCKSTEP_HOME, or upward from the program's own place; empty when none.
std::string home_folder();

}  // namespace lockstep::server
