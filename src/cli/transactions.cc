#include "cli/transactions.h"

#include "base/text.h"
#include "cli/answer.h"
#include "cli/show.h"

namespace lockstep::cli {

namespace {

Status check_id(const std::string& id) {
  if (is_plain_name(id)) return {};
  return fail(ErrorCode::not_found, cat("there is no transaction ", shortened(harmless(id))));
}

bool is_undone(const TransactionView& each) { return each.state == "compensating" || each.state == "parked"; }
bool is_open(const TransactionView& each) {
  return each.state == "preparing" || each.state == "committing" || is_undone(each);
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : harmless(text); }

std::string override_text(const TransactionOverride& row) {
  return cat("a person decided ", harmless(row.decision), " while it was ", harmless(row.was), ": ",
             harmless(row.reason), "\n");
}

/// What is left to undo, in order, and how often the first of it was tried.
std::string saga_text(const SagaRecord& saga) {
  std::string out = cat("it failed: ", or_dash(saga.failure), "\nleft to undo since ", to_rfc3339(saga.since), ", ",
                        saga.attempts, " of ", compensation_attempts_max, " attempts at the first:\n");
  for (const DueCompensation& each : saga.due) {
    out += cat("  ", each.step, "  ", harmless(each.compensation), "  ", harmless(each.target), "\n");
  }
  return out;
}

}  // namespace

std::string text_of(const TransactionsView& view) {
  if (view.transactions.empty()) return "no transactions\n";
  std::vector<Row> rows{{"TRANSACTION", "KIND", "STATE", "WORKER", "MODEL", "FOR", "BEGAN", "WHY"}};
  for (const TransactionView& each : view.transactions) {
    rows.push_back({each.transaction_id.str(), each.kind, each.state, or_dash(each.worker_id.str()),
                    or_dash(each.model_id.str()), or_dash(each.job_id.str()), each.began,
                    or_dash(shortened(each.reason, 100))});
  }
  return table_text(rows);
}

std::string text_of(const TransactionView& view) {
  std::string out = cat(view.transaction_id.str(), "  ", view.kind, "  ", view.state, "\n");
  out += cat("worker ", or_dash(view.worker_id.str()), ", incarnation ", view.incarnation.value, ", device ",
             or_dash(view.device_id.str()), ", model ", or_dash(view.model_id.str()), ", for ",
             or_dash(view.job_id.str()), "\n");
  out += cat("began ", view.began, ", last changed ", view.changed, "\n");
  if (!view.reason.empty()) out += cat("because: ", harmless(view.reason), "\n");
  if (view.saga) out += saga_text(*view.saga);
  if (view.resolved_by_hand) out += override_text(*view.resolved_by_hand);
  if (!view.documents) return out;
  for (const DocumentView& each : *view.documents) {
    out += cat("\n", each.at, "  ", each.name, "\n  ", harmless(each.body.text), "\n");
  }
  if (view.state == "parked") {
    out += cat("\nit is parked; to undo it once more: lockstep tx resolve ", view.transaction_id.str(),
               " --retry --reason WHY; to say that it is gone, or may stay: --accept\n");
  } else if (is_open(view) && !is_undone(view)) {
    out += cat("\nit is open; to decide in its place: lockstep tx resolve ", view.transaction_id.str(),
               " --abort --reason WHY\n");
  }
  return out;
}

ExitCode list_transactions(const http::Address& address, bool open, bool as_json) {
  const auto response = http::request(address, "GET", "/api/v1/transactions");
  if (!open) {
    return tell_view<TransactionsView>(response, 200, as_json, [](const auto& view) { return text_of(view); });
  }
  if (!response) return tell(response.error());
  if (response->status != 200) return tell(http::error_from(*response));
  auto view = view_in<TransactionsView>(*response);
  if (!view) return tell(view.error());
  std::erase_if(view->transactions, [](const TransactionView& each) { return !is_open(each); });
  print(as_json ? json::to_text(*view) + "\n" : text_of(*view));
  return ExitCode::done;
}

ExitCode show_transaction(const http::Address& address, const std::string& id, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  return tell_view<TransactionView>(http::request(address, "GET", cat("/api/v1/transactions/", id)), 200, as_json,
                                    [](const auto& view) { return text_of(view); });
}

namespace {

struct Resolve {
  std::string decision;
  std::string reason;
};
BOOST_DESCRIBE_STRUCT(Resolve, (), (decision, reason))

}  // namespace

ExitCode resolve_transaction(const http::Address& address, const std::string& id, const std::string& decision,
                             const std::string& reason, bool as_json) {
  if (const Status good = check_id(id); !good) return tell(good.error());
  const auto response = http::request(address, "POST", cat("/api/v1/transactions/", id, "/resolve"),
                                      json::to_text(Resolve{decision, reason}));
  return tell_view<TransactionOverride>(response, 200, as_json, [](const TransactionOverride& row) {
    return cat(row.transaction_id.str(), ": ", override_text(row));
  });
}

}  // namespace lockstep::cli
