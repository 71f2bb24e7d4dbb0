#include "journal/sqlite_store.h"

#include <sqlite3.h>

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"

namespace lockstep {

namespace {

constexpr int application_id = 0x4C4B5354;  // "LKST"

std::uint32_t record_crc(Lsn lsn, std::string_view body, std::uint32_t previous) {
  return crc32c(body, crc32c(cat(lsn.value), previous));
}

std::uint32_t row_crc(std::string_view table, std::string_view key, std::string_view value, std::uint64_t rev) {
  return crc32c(value, crc32c(cat(table, "\n", key, "\n", rev)));
}

}  // namespace

/// The raw handle and its prepared statements.
struct SqliteStore::Connection {
  std::string path;
  sqlite3* db = nullptr;
  std::uint32_t last_crc = 0;
  std::uint32_t past_crc = 0;  // of the past record that was read last
  Lsn last;

  ~Connection() { sqlite3_close_v2(db); }

  Error error(std::string_view what, ErrorCode code = ErrorCode::data_loss) const {
    return fail(code, cat("journal ", path, ": ", what, ": ", sqlite3_errmsg(db)));
  }

  Status run(const char* sql) {
    if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return error(sql);
  }

  /// A statement for one use; text is bound without a copy and must outlive it.
  class Statement {
   public:
    Statement(sqlite3* db, const char* sql) { sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr); }
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    bool prepared() const { return statement_ != nullptr; }
    void bind(int at, std::uint64_t number) {
      LOCKSTEP_CHECK(sqlite3_bind_int64(statement_, at, static_cast<sqlite3_int64>(number)) == SQLITE_OK);
    }
    void bind(int at, std::string_view text) {
      LOCKSTEP_CHECK(sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8) ==
                     SQLITE_OK);
    }
    int step() { return sqlite3_step(statement_); }
    void reset() { sqlite3_reset(statement_); }
    std::uint64_t number(int column) const {
      return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
    }
    std::string text(int column) const {
      const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
      return bytes == nullptr ? std::string()
                              : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
    }

   private:
    sqlite3_stmt* statement_ = nullptr;
  };

  Status check_past(const Recovered& before, const Record& record, std::uint32_t crc, std::uint32_t snapshot_crc);

  Result<std::uint64_t> number_of(const char* sql) {
    Statement query(db, sql);
    if (!query.prepared() || query.step() != SQLITE_ROW) return error(sql);
    return query.number(0);
  }
};

/// The oldest record that is kept has no predecessor to be checked with; all others hang on the one before, and the
/// newest is the one that the snapshot's mark names.
Status SqliteStore::Connection::check_past(const Recovered& before, const Record& record, std::uint32_t crc,
                                           std::uint32_t snapshot_crc) {
  if (!before.past.empty()) {
    if (record.lsn != before.past.back().lsn.next()) {
      return fail(ErrorCode::data_loss, cat("journal ", path, ": record ", before.past.back().lsn.value + 1,
                                            " is missing; the next is ", record.lsn.value));
    }
    if (crc != record_crc(record.lsn, record.body, past_crc)) {
      return fail(ErrorCode::data_loss, cat("journal ", path, ": record ", record.lsn.value, " failed its checksum"));
    }
  }
  past_crc = crc;
  if (record.lsn != before.snapshot_at || crc == snapshot_crc) return {};
  return fail(ErrorCode::data_loss,
              cat("journal ", path, ": record ", record.lsn.value, " is not the one that the snapshot was made at"));
}

SqliteStore::SqliteStore(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
SqliteStore::~SqliteStore() = default;

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path) {
  auto connection = std::make_unique<Connection>();
  connection->path = path;
  if (sqlite3_open_v2(path.c_str(), &connection->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                      nullptr) != SQLITE_OK) {
    return connection->error("cannot be opened", ErrorCode::unavailable);
  }
  // Exclusive before the first access: then WAL needs no shared-memory file and no second connection can exist.
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA locking_mode=EXCLUSIVE"));
  if (!connection->run("PRAGMA journal_mode=WAL")) {
    return connection->error("cannot be locked; is another lockstep using it?", ErrorCode::unavailable);
  }
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA synchronous=FULL"));
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA mmap_size=0"));
  // A checkpoint in the middle of a commit would add its two syncs to one request's latency; ours runs at snapshots.
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA wal_autocheckpoint=0"));
  if (!connection->run("BEGIN EXCLUSIVE")) {
    return connection->error("cannot be locked; is another lockstep using it?", ErrorCode::unavailable);
  }
  const std::uint64_t id = LOCKSTEP_TRY(connection->number_of("PRAGMA application_id"));
  const std::uint64_t version = LOCKSTEP_TRY(connection->number_of("PRAGMA user_version"));
  const std::uint64_t tables = LOCKSTEP_TRY(connection->number_of("SELECT count(*) FROM sqlite_master"));
  if (tables == 0 && id == 0) {
    LOCKSTEP_TRY_STATUS(connection->run(cat("PRAGMA application_id=", application_id).c_str()));
    LOCKSTEP_TRY_STATUS(connection->run(cat("PRAGMA user_version=", format_version).c_str()));
    LOCKSTEP_TRY_STATUS(connection->run(
        "CREATE TABLE record(lsn INTEGER PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"
        "CREATE TABLE snapshot_row(tbl TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, mod_rev INTEGER NOT NULL,"
        " crc INTEGER NOT NULL, PRIMARY KEY(tbl, key)) STRICT, WITHOUT ROWID;"
        "CREATE TABLE mark(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
        "INSERT INTO mark VALUES('snapshot_at', 0), ('snapshot_crc', 0)"));
  } else if (id != application_id) {
    return fail(ErrorCode::data_loss, cat("journal ", path, ": this file is not a lockstep journal"));
  } else if (version != format_version) {
    return fail(ErrorCode::data_loss,
                cat("journal ", path, ": format version ", version, "; this lockstep reads version ", format_version));
  }
  LOCKSTEP_TRY_STATUS(connection->run("COMMIT"));
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(connection)));
}

Result<Recovered> SqliteStore::recover() {
  Connection& c = *connection_;
  Connection::Statement integrity(c.db, "PRAGMA quick_check(1)");
  if (!integrity.prepared() || integrity.step() != SQLITE_ROW || integrity.text(0) != "ok") {
    return c.error("failed its integrity check");
  }
  Recovered out;
  out.snapshot_at = Lsn{LOCKSTEP_TRY(c.number_of("SELECT value FROM mark WHERE name='snapshot_at'"))};
  c.last_crc =
      static_cast<std::uint32_t>(LOCKSTEP_TRY(c.number_of("SELECT value FROM mark WHERE name='snapshot_crc'")));
  c.last = out.snapshot_at;

  Connection::Statement rows(c.db, "SELECT tbl, key, value, mod_rev, crc FROM snapshot_row ORDER BY tbl, key");
  int step = SQLITE_DONE;
  while ((step = rows.step()) == SQLITE_ROW) {
    SnapshotRow row{rows.text(0), rows.text(1), rows.text(2), Rev{rows.number(3)}};
    if (row_crc(row.table, row.key, *row.value, row.mod_rev.value) != rows.number(4)) {
      return fail(ErrorCode::data_loss,
                  cat("journal ", c.path, ": snapshot row ", row.table, "/", row.key, " failed its checksum"));
    }
    out.rows.push_back(std::move(row));
  }
  if (step != SQLITE_DONE) return c.error("cannot read the snapshot");

  Connection::Statement records(c.db, "SELECT lsn, body, crc FROM record ORDER BY lsn");
  const std::uint32_t snapshot_crc = c.last_crc;
  while ((step = records.step()) == SQLITE_ROW) {
    Record record{Lsn{records.number(0)}, records.text(1)};
    if (record.lsn <= out.snapshot_at) {
      LOCKSTEP_TRY_STATUS(c.check_past(out, record, static_cast<std::uint32_t>(records.number(2)), snapshot_crc));
      out.past.push_back(std::move(record));
      continue;
    }
    if (record.lsn != c.last.next()) {
      return fail(ErrorCode::data_loss, cat("journal ", c.path, ": record ", c.last.value + 1,
                                            " is missing; the next is ", record.lsn.value));
    }
    const std::uint32_t crc = record_crc(record.lsn, record.body, c.last_crc);
    if (crc != records.number(2)) {
      return fail(ErrorCode::data_loss, cat("journal ", c.path, ": record ", record.lsn.value, " failed its checksum"));
    }
    c.last = record.lsn;
    c.last_crc = crc;
    out.records.push_back(std::move(record));
  }
  if (step != SQLITE_DONE) return c.error("cannot read the records");
  return out;
}

Status SqliteStore::append(std::span<const Record> records) {
  Connection& c = *connection_;
  LOCKSTEP_TRY_STATUS(c.run("BEGIN IMMEDIATE"));
  Connection::Statement insert(c.db, "INSERT INTO record(lsn, body, crc) VALUES(?, ?, ?)");
  if (!insert.prepared()) return c.error("cannot append");
  for (const Record& record : records) {
    LOCKSTEP_CHECK(record.lsn == c.last.next());
    const std::uint32_t crc = record_crc(record.lsn, record.body, c.last_crc);
    insert.bind(1, record.lsn.value);
    insert.bind(2, record.body);
    insert.bind(3, crc);
    if (insert.step() != SQLITE_DONE) return c.error("cannot append");
    insert.reset();
    c.last = record.lsn;
    c.last_crc = crc;
  }
  return c.run("COMMIT");
}

Status SqliteStore::snapshot(Lsn at, std::span<const SnapshotRow> changed) {
  Connection& c = *connection_;
  LOCKSTEP_CHECK(at == c.last);  // the chain continues from the last record's checksum
  LOCKSTEP_TRY_STATUS(c.run("BEGIN IMMEDIATE"));
  {
    Connection::Statement put(c.db, "INSERT OR REPLACE INTO snapshot_row VALUES(?, ?, ?, ?, ?)");
    Connection::Statement erase(c.db, "DELETE FROM snapshot_row WHERE tbl=? AND key=?");
    if (!put.prepared() || !erase.prepared()) return c.error("cannot write the snapshot");
    for (const SnapshotRow& row : changed) {
      Connection::Statement& statement = row.value ? put : erase;
      statement.bind(1, row.table);
      statement.bind(2, row.key);
      if (row.value) {
        statement.bind(3, *row.value);
        statement.bind(4, row.mod_rev.value);
        statement.bind(5, row_crc(row.table, row.key, *row.value, row.mod_rev.value));
      }
      if (statement.step() != SQLITE_DONE) return c.error("cannot write the snapshot");
      statement.reset();
    }
    Connection::Statement mark(c.db, "UPDATE mark SET value=? WHERE name=?");
    Connection::Statement forget(c.db, "DELETE FROM record WHERE lsn<=?");
    if (!mark.prepared() || !forget.prepared()) return c.error("cannot write the snapshot");
    mark.bind(1, at.value);
    mark.bind(2, std::string_view("snapshot_at"));
    if (mark.step() != SQLITE_DONE) return c.error("cannot write the snapshot");
    mark.reset();
    mark.bind(1, c.last_crc);
    mark.bind(2, std::string_view("snapshot_crc"));
    if (mark.step() != SQLITE_DONE) return c.error("cannot write the snapshot");
    forget.bind(1, at.value > past_records_max ? at.value - past_records_max : 0);
    if (forget.step() != SQLITE_DONE) return c.error("cannot forget old records");
  }
  LOCKSTEP_TRY_STATUS(c.run("COMMIT"));
  return c.run("PRAGMA wal_checkpoint(TRUNCATE)");
}

}  // namespace lockstep
