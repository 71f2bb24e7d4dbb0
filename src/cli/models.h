#pragma once

// `lockstep models show|add|remove|verify|load|unload|queue`: what is registered, what it needs, and where it is
// loaded.

#include <string>
#include <vector>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/views.h"

namespace lockstep::cli {

struct ModelOptions {
  std::string id;
  std::string path;                // add: as typed, relative to where the program runs
  std::string name;                // add: empty for that of the file or folder
  bool copy = false;               // add
  bool link = false;               // add
  bool force = false;              // remove
  std::string worker;              // load, unload: empty for any, or all
  std::string priority;            // load: empty for normal
  std::vector<std::string> names;  // verify: empty for all
  bool json = false;
};

std::string text_of(const ModelView& view);

ExitCode show_model(const http::Address& address, const ModelOptions& options);
ExitCode add_model(const http::Address& address, const ModelOptions& options);
ExitCode remove_model(const http::Address& address, const ModelOptions& options);
/// Every byte of each; the first failure gives the status, the others are still read.
ExitCode verify_models(const http::Address& address, const ModelOptions& options);
/// Each answers when it is done, with progress on stderr.
ExitCode load_model(const http::Address& address, const ModelOptions& options);
ExitCode unload_model(const http::Address& address, const ModelOptions& options);
/// Loads and unloads that wait or run, in the order in which they are served.
ExitCode show_load_queue(const http::Address& address, const ModelOptions& options);

/// Without assignments (KEY=VALUE) and without `whole` it only shows.
ExitCode configure_model(const http::Address& address, const ModelOptions& options,
                         const std::vector<std::string>& assignments, bool whole);

}  // namespace lockstep::cli
