// Recovery: the snapshot's rows, then the records after it. A commit puts and deletes whole rows, so of each row only
// the last change matters; the others are read past, which is most of the work saved. What counts or lists rows is made
// by the same change() as in life, or from the rows in the end.

#include <map>

#include "base/check.h"
#include "events/json_read.h"
#include "orchestrator/machine.h"

namespace lockstep {

namespace {

/// A commit in which only the names of rows are read. Most values are of rows that a later record changes again, and
/// events are for who reads them from the record.
struct ReplayedChange {
  std::string table;
  std::string key;
  std::optional<json::Slice> value;
};
BOOST_DESCRIBE_STRUCT(ReplayedChange, (), (table, key, value))
struct Replayed {
  Rev rev;
  WallTime time;
  std::vector<ReplayedChange> changes;
  json::Slice events;
};
BOOST_DESCRIBE_STRUCT(Replayed, (), (rev, time, changes, events))

/// The last change of each row. Rows of a table stand in the order in which the records first name them, which is
/// mostly that of their keys.
class LastChanges {
 public:
  struct Last {
    std::string key;
    std::optional<std::string_view> value;  // within its record
    Rev rev;
  };
  struct OfTable {
    std::vector<Last> rows;
    std::map<std::string, std::size_t> places;
  };

  Status add(const Record& record) {
    const Status read = json::read_text(record.body, commit_, nullptr, {.size_max = 64u << 20, .depth_max = 40});
    if (!read) {
      return fail(ErrorCode::data_loss,
                  cat("journal record ", record.lsn.value, " is not a commit: ", read.error().message),
                  read.error().pointer);
    }
    if (commit_.rev.value != record.lsn.value) {
      return fail(ErrorCode::data_loss, cat("journal record ", record.lsn.value, " holds rev ", commit_.rev.value));
    }
    for (const ReplayedChange& change : commit_.changes) {
      OfTable& table = tables_[change.table];
      const auto [place, is_new] = table.places.try_emplace(change.key, table.rows.size());
      if (is_new) table.rows.push_back({change.key, {}, {}});
      Last& row = table.rows[place->second];
      row.value = change.value ? std::optional(change.value->text) : std::nullopt;
      row.rev = commit_.rev;
    }
    return {};
  }
  const std::map<std::string, OfTable>& tables() const { return tables_; }

 private:
  std::map<std::string, OfTable> tables_;
  Replayed commit_;  // its memory is used again
};

}  // namespace

Status Orchestrator::restore(const std::string& table, const std::string& key, std::optional<RawJson> value, Rev rev) {
  Commit commit;
  commit.rev = rev;
  commit.changes.push_back({table, key, std::move(value)});
  return change(commit, std::nullopt);
}

Result<Lsn> Orchestrator::recover(const Recovered& recovered) {
  for (const SnapshotRow& row : recovered.rows) {
    LOCKSTEP_CHECK(row.value.has_value());
    LOCKSTEP_TRY_STATUS(restore(row.table, row.key, RawJson{*row.value}, row.mod_rev));
  }
  changed_.clear();  // the snapshot has these rows already
  LastChanges last;
  for (const Record& record : recovered.records) LOCKSTEP_TRY_STATUS(last.add(record));
  for (const auto& [name, table] : last.tables()) {
    for (const LastChanges::Last& row : table.rows) {
      LOCKSTEP_TRY_STATUS(
          restore(name, row.key, row.value ? std::optional(RawJson{std::string(*row.value)}) : std::nullopt, row.rev));
    }
  }
  for (const auto& [key, entry] : tables_.processing.jobs.entries()) ++live_.counters.jobs[entry.row.stage];
  const Lsn end = recovered.records.empty() ? recovered.snapshot_at : recovered.records.back().lsn;
  live_.rev = Rev{end.value};
  return end;
}

}  // namespace lockstep
