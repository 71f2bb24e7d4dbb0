#pragma once

// A table of facts: text key -> typed row with the rev that last changed it. Reading is free; writing goes through a
// Change (which becomes a Commit) and comes back by apply, so that memory, journal and replay cannot disagree.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "base/result.h"
#include "events/json_read.h"
#include "state/commit.h"

namespace lockstep {

/// A row as an older lockstep wrote it, with the keys that it did not know yet: `defaults` is the inside of an object.
std::string with_defaults(std::string_view row, std::string_view defaults);

/// A Row that got a member which is not optional names it, with the value that rows without it have, in
/// `static constexpr std::string_view row_defaults`: all such members of one change together.
template <class Row>
class Table {
 public:
  struct Entry {
    Row row;
    Rev mod_rev;
  };

  explicit Table(std::string_view name) : name_(name) {}

  std::string_view name() const { return name_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  bool contains(const std::string& key) const { return entries_.contains(key); }
  std::size_t size() const { return entries_.size(); }

  /// nullptr when there is no such row.
  const Row* find(const std::string& key) const {
    const auto place = entries_.find(key);
    return place == entries_.end() ? nullptr : &place->second.row;
  }
  /// The row must be there: a missing one is a defect.
  const Row& at(const std::string& key) const {
    const Row* row = find(key);
    LOCKSTEP_CHECK(row != nullptr);
    return *row;
  }

  Status apply(const FactChange& change, Rev rev) {
    if (!change.value) {
      entries_.erase(change.key);
      return {};
    }
    auto row = read(change.value->text);
    if constexpr (requires { Row::row_defaults; }) {
      if (!row) row = read(with_defaults(change.value->text, Row::row_defaults));
    }
    if (!row) {
      return fail(ErrorCode::data_loss, cat("row ", change.key, " of ", name_, ": ", row.error().message),
                  row.error().pointer);
    }
    entries_.insert_or_assign(entries_.end(), change.key, Entry{*std::move(row), rev});  // new ids are the last mostly
    return {};
  }

 private:
  static Result<Row> read(std::string_view text) {
    return json::from_text<Row>(text, nullptr, {.size_max = 64u << 20, .depth_max = 40});
  }

  std::string_view name_;
  std::map<std::string, Entry> entries_;
};

/// Collects the changes of one decision.
class Change {
 public:
  template <class Row>
  void put(const Table<Row>& table, const std::string& key, const Row& row) {
    commit_.changes.push_back({std::string(table.name()), key, RawJson{json::to_text(row)}});
  }
  template <class Row>
  void erase(const Table<Row>& table, const std::string& key) {
    commit_.changes.push_back({std::string(table.name()), key, std::nullopt});
  }
  /// What streams will show for this commit. A message type of §2 names itself. session: see CommitEvent.
  template <class Body>
  void event(std::string type, std::string subject, const Body& body, std::optional<std::string> session = {}) {
    commit_.events.push_back({std::move(type), std::move(subject), RawJson{json::to_text(body)}, std::move(session)});
  }

  bool empty() const { return commit_.empty(); }
  Commit take(WallTime time) {
    commit_.time = time;
    return std::exchange(commit_, {});
  }

 private:
  Commit commit_;
};

/// One row as text, for snapshots and digests.
struct RowText {
  std::string table;
  std::string key;
  std::string value;
  Rev mod_rev;
  friend bool operator==(const RowText&, const RowText&) = default;
};

/// All rows of a set of tables in (table, key) order of declaration. `Tables` has for_each_table(f).
template <class Tables>
std::vector<RowText> dump(const Tables& tables) {
  std::vector<RowText> out;
  tables.for_each_table([&](const auto& table) {
    for (const auto& [key, entry] : table.entries()) {
      out.push_back({std::string(table.name()), key, json::to_text(entry.row), entry.mod_rev});
    }
  });
  return out;
}

/// Applies every change of a commit, or returns data_loss for an unknown table or an unreadable row.
template <class Tables>
Status apply_changes(Tables& tables, const Commit& commit) {
  for (const FactChange& change : commit.changes) {
    bool known = false;
    Status status;
    tables.for_each_table([&](auto& table) {
      if (known || table.name() != change.table) return;
      known = true;
      status = table.apply(change, commit.rev);
    });
    if (!known) return fail(ErrorCode::data_loss, cat("unknown table \"", shortened(change.table), "\" in a commit"));
    LOCKSTEP_TRY_STATUS(status);
  }
  return {};
}

/// SHA-256 over rev and all rows: equal digests at equal revs mean equal state.
std::string digest_of(Rev rev, const std::vector<RowText>& rows);

}  // namespace lockstep
