#include "cli/journal.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/text.h"
#include "cli/answer.h"
#include "cli/show.h"
#include "http/client.h"
#include "http/journal_shapes.h"
#include "journal/sqlite_store.h"
#include "orchestrator/machine.h"

namespace lockstep::cli {

namespace {

/// What a journal holds, when it is sound.
struct JournalView {
  std::uint64_t rev = 0;
  std::string digest;
  std::uint64_t snapshot_at = 0;
  std::uint64_t records_replayed = 0;
  std::uint64_t records_past = 0;
  std::uint64_t rows = 0;  // of the snapshot
};
BOOST_DESCRIBE_STRUCT(JournalView, (), (rev, digest, snapshot_at, records_replayed, records_past, rows))

struct RowLine {
  std::string kind = "row";
  Rev rev;
  std::string table;
  std::string key;
  RawJson value;
};
BOOST_DESCRIBE_STRUCT(RowLine, (), (kind, rev, table, key, value))

struct RecordLine {
  std::string kind = "record";
  Rev rev;
  bool past = false;
  RawJson commit;
};
BOOST_DESCRIBE_STRUCT(RecordLine, (), (kind, rev, past, commit))

struct Options {
  std::string data_dir;
  std::string file;  // instead of the one in data_dir
  std::string url;
  std::uint64_t from = 0;
  std::uint64_t to = std::numeric_limits<std::uint64_t>::max();
  bool offline = false;  // backup: data_dir was named
  bool json = false;
};

Result<std::unique_ptr<SqliteStore>> open(const Options& options) {
  const std::string path = options.file.empty() ? cat(options.data_dir, "/journal.db") : options.file;
  auto store = SqliteStore::open_to_read(path);
  if (store || store.error().code != ErrorCode::unavailable) return store;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return fail(ErrorCode::not_found, cat("there is no journal ", path, "; it is a folder"));
  }
  return fail(
      ErrorCode::unavailable,
      cat("the journal ", path, " cannot be opened; a running lockstep lets nobody else in: stop it, or look at a ",
          "copy (lockstep journal backup FILE)"));
}

Result<JournalView> verify(const Options& options) {
  const auto store = LOCKSTEP_TRY(open(options));
  const Recovered recovered = LOCKSTEP_TRY(store->recover());
  Orchestrator machine{Settings{}};
  LOCKSTEP_TRY(machine.recover(recovered));
  return JournalView{machine.rev().value,      machine.digest(),      recovered.snapshot_at.value,
                     recovered.records.size(), recovered.past.size(), recovered.rows.size()};
}

ExitCode tell_verified(const Options& options) {
  const auto view = verify(options);
  if (!view) return tell(view.error());
  print(options.json ? json::to_text(*view) + "\n"
                     : cat("rev ", view->rev, ", digest ", view->digest, "\n", view->records_replayed,
                           " records replayed after the snapshot at rev ", view->snapshot_at, " with ", view->rows,
                           " rows; ", view->records_past, " older ones are kept\n"));
  return ExitCode::done;
}

ExitCode dump(const Options& options) {
  const auto store = open(options);
  if (!store) return tell(store.error());
  const auto recovered = (*store)->recover();
  if (!recovered) return tell(recovered.error());
  const auto text = dump_text(*recovered, Rev{options.from}, Rev{options.to}, options.json);
  if (!text) return tell(text.error());
  print(*text);
  return ExitCode::done;
}

std::string text_of(const http::SnapshotView& view) {
  return cat("snapshot at rev ", view.rev.value, ": ", view.rows, " rows in ", view.pieces, " pieces, ",
             std::lround(view.milliseconds), " ms\n");
}

std::string text_of(const http::BackupView& view) {
  return cat(harmless(view.file), ": ", view.bytes, " bytes, rev ", view.rev.value, ", ",
             std::lround(view.milliseconds), " ms\n");
}

ExitCode snapshot(const Options& options) {
  const auto address = http::address_from_url(options.url);
  if (!address) return tell(address.error());
  return tell_view<http::SnapshotView>(http::request(*address, "POST", "/api/v1/journal/snapshot"), 200, options.json,
                                       [](const http::SnapshotView& view) { return text_of(view); });
}

ExitCode backup_offline(const Options& options, const std::string& file) {
  const auto store = open({.data_dir = options.data_dir});
  if (!store) return tell(store.error());
  const auto recovered = (*store)->recover();  // a damaged one is no copy to rely on
  if (!recovered) return tell(recovered.error());
  const auto bytes = (*store)->backup(file);
  if (!bytes) return tell(bytes.error());
  const std::uint64_t rev = recovered->snapshot_at.value + recovered->records.size();
  const http::BackupView view{file, Rev{rev}, *bytes, 0};
  print(options.json ? json::to_text(view) + "\n" : cat(harmless(file), ": ", *bytes, " bytes, rev ", rev, "\n"));
  return ExitCode::done;
}

ExitCode backup(const Options& options, const std::string& named) {
  std::error_code error;
  // The server has a working directory of its own.
  const std::string file = std::filesystem::absolute(named, error).lexically_normal().string();
  if (options.offline) return backup_offline(options, file);
  const auto address = http::address_from_url(options.url);
  if (!address) return tell(address.error());
  auto response = http::request(*address, "POST", "/api/v1/journal/backup", json::to_text(http::BackupBody{file}));
  if (!response && response.error().code == ErrorCode::unavailable) {
    response.error().message += "; --data-dir DIR copies the journal of a stopped one";
  }
  return tell_view<http::BackupView>(response, 200, options.json,
                                     [](const http::BackupView& view) { return text_of(view); });
}

}  // namespace

Result<std::string> dump_text(const Recovered& recovered, Rev from, Rev to, bool json) {
  const auto wanted = [&](Rev rev) { return rev >= from && rev <= to; };
  std::string out;
  for (const SnapshotRow& row : recovered.rows) {
    if (!wanted(row.mod_rev)) continue;
    if (json) {
      out +=
          json::to_text(RowLine{.rev = row.mod_rev, .table = row.table, .key = row.key, .value = {*row.value}}) + "\n";
    } else {
      out += cat("row ", row.mod_rev.value, "  ", harmless(row.table), "  ", harmless(row.key), "  ",
                 harmless(*row.value), "\n");
    }
  }
  for (const auto* records : {&recovered.past, &recovered.records}) {
    for (const Record& record : *records) {
      if (!wanted(Rev{record.lsn.value})) continue;
      const Commit commit = LOCKSTEP_TRY(decode_commit(record.body));
      const bool past = records == &recovered.past;
      if (json) {
        out += json::to_text(RecordLine{.rev = commit.rev, .past = past, .commit = {record.body}}) + "\n";
        continue;
      }
      out += cat("record ", record.lsn.value, "  ", to_rfc3339(commit.time), past ? "  in the snapshot\n" : "\n");
      for (const FactChange& change : commit.changes) {
        out += cat(change.value ? "  put     " : "  delete  ", harmless(change.table), "  ", harmless(change.key),
                   change.value ? cat("  ", harmless(change.value->text)) : "", "\n");
      }
      for (const CommitEvent& event : commit.events) {
        out += cat("  event   ", harmless(event.type), "  ", harmless(event.subject), "  ", harmless(event.body.text),
                   "\n");
      }
    }
  }
  return out;
}

struct Journal::State {
  Options options;
  std::string copy;
  CLI::App* verify = nullptr;
  CLI::App* dump = nullptr;
  CLI::App* snapshot = nullptr;
  CLI::App* backup = nullptr;
  CLI::Option* backup_dir = nullptr;
};

Journal::Journal(CLI::App& app, std::string data_dir) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.options.data_dir = std::move(data_dir);
  CLI::App* journal = app.add_subcommand("journal", "check, read and copy the journal");
  journal->require_subcommand(1);
  s.verify = journal->add_subcommand("verify", "check every row, replay, and print rev and digest of the state");
  s.dump = journal->add_subcommand("dump", "print the snapshot's rows and the records");
  for (CLI::App* each : {s.verify, s.dump}) {
    each->add_option("--data-dir", s.options.data_dir, "of a stopped server")->capture_default_str();
    each->add_option("--file", s.options.file, "a copy, instead");
  }
  s.dump->add_option("--from", s.options.from, "the first lsn; of rows the rev that last changed them");
  s.dump->add_option("--to", s.options.to, "the last one");
  s.snapshot = journal->add_subcommand("snapshot", "let the running server write a snapshot now");
  s.backup = journal->add_subcommand("backup", "copy the journal into a new file, while the server runs");
  s.backup->add_option("FILE", s.copy, "the new file")->required();
  s.backup_dir =
      s.backup->add_option("--data-dir", s.options.data_dir, "of a stopped server, instead of a running one");
  for (CLI::App* each : {s.snapshot, s.backup}) {
    each->add_option("--url", s.options.url, "the server")
        ->envname("LOCKSTEP_URL")
        ->default_str("http://127.0.0.1:7420");
  }
  s.options.url = "http://127.0.0.1:7420";
  for (CLI::App* each : {s.verify, s.dump, s.snapshot, s.backup}) {
    each->add_flag("--json", s.options.json, "print JSON for programs instead of text for people");
  }
}

Journal::~Journal() = default;

std::optional<int> Journal::run() {
  State& s = *state_;
  s.options.offline = s.backup_dir->count() > 0;
  if (s.verify->parsed()) return static_cast<int>(tell_verified(s.options));
  if (s.dump->parsed()) return static_cast<int>(dump(s.options));
  if (s.snapshot->parsed()) return static_cast<int>(snapshot(s.options));
  if (s.backup->parsed()) return static_cast<int>(backup(s.options, s.copy));
  return std::nullopt;
}

}  // namespace lockstep::cli
