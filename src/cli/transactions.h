#pragma once

// `lockstep tx list|show|resolve`: what transactions do and did, as the documents of §3.1-3.8, and the one way to
// decide in their place.

#include <string>

#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/views.h"

namespace lockstep::cli {

std::string text_of(const TransactionsView& view);
std::string text_of(const TransactionView& view);

/// open: only those that have not ended.
ExitCode list_transactions(const http::Address& address, bool open, bool as_json);
ExitCode show_transaction(const http::Address& address, const std::string& id, bool as_json);
/// decision: "commit", "abort", "retry" or "accept".
ExitCode resolve_transaction(const http::Address& address, const std::string& id, const std::string& decision,
                             const std::string& reason, bool as_json);

}  // namespace lockstep::cli
