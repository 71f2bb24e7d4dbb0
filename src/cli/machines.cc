#include "cli/machines.h"

#include <set>
#include <string_view>

#include "base/text.h"
#include "domains/device/lifecycle.h"
#include "domains/inference/lifecycle.h"
#include "domains/memory/lifecycle.h"
#include "domains/model/lifecycle.h"
#include "domains/postprocessing/lifecycle.h"
#include "domains/processing/lifecycle.h"
#include "events/json_write.h"
#include "liveness/worker_record.h"
#include "transactions/participant.h"
#include "transactions/two_phase_commit.h"

namespace lockstep::cli {

namespace {

/// A state that no row leaves for another is an end.
template <class Table>
std::string section(std::string_view title, std::string_view code, const Table& machine) {
  std::string diagram = cat("## ", title, "\n\n`", code, "`\n\n```mermaid\nstateDiagram-v2\n");
  std::string table = "| from | event | to |\n|---|---|---|\n";
  std::set<std::string> left;
  std::set<std::string> entered;
  for (const auto& row : machine.rows) {
    const std::string from = json::enum_name(row.from);
    const std::string event = json::enum_name(row.event);
    const std::string to = json::enum_name(row.to);
    if (row.from != row.to) left.insert(from);
    entered.insert(to);
    diagram += cat("  ", from, " --> ", to, ": ", event, "\n");
    table += cat("| `", from, "` | `", event, "` | `", to, "` |\n");
  }
  for (const std::string& end : entered) {
    if (!left.contains(end)) diagram += cat("  ", end, " --> [*]\n");
  }
  return cat(diagram, "```\n\n", table, "\n");
}

}  // namespace

std::string machines_document() {
  std::string out =
      "# State machines\n\nMade by `lockstep message machines` from the tables that the program runs by; a state "
      "changes "
      "in no other way.\nAn event that a state does not list is `invalid_transition`.\n\n";
  out += section("A transaction (§3.5)", "src/transactions/two_phase_commit.h", two_phase_commit);
  out += section("A transaction at its participant (§3.5)", "src/transactions/participant.h", participant_lifecycle);
  out += section("A saga (§3.6)", "src/transactions/saga.h", saga_lifecycle);
  out += section("A worker", "src/liveness/worker_record.h", worker_lifecycle);
  out += section("A device", "src/domains/device/lifecycle.h", device::device_lifecycle);
  out += section("An allocation", "src/domains/memory/lifecycle.h", memory::allocation_lifecycle);
  out += section("A model on a worker", "src/domains/model/lifecycle.h", model::residency_lifecycle);
  out += section("A job: one image", "src/domains/processing/lifecycle.h", processing::job_lifecycle);
  out += section("A session", "src/domains/processing/lifecycle.h", processing::session_lifecycle);
  out += section("A run of a model", "src/domains/inference/lifecycle.h", inference::run_lifecycle);
  out += section("A run of a pipeline", "src/domains/postprocessing/lifecycle.h", postprocessing::run_lifecycle);
  out.pop_back();
  return out;
}

}  // namespace lockstep::cli
