#include "journal/sqlite_store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/check.h"
#include "base/text.h"
#include "journal/checksums.h"
#include "journal/sqlite_log.h"
#include "journal/sqlite_rows.h"

namespace lockstep {

namespace {

constexpr int application_id = 0x4C4B5354;  // "LKST"
constexpr const char* record_table =
    "CREATE TABLE record(lsn INTEGER PRIMARY KEY, body ANY NOT NULL, crc INTEGER NOT NULL) STRICT;";

// The log is longer than what is in it, by zeros: a commit then changes no size and its sync is only a sync, which is a
// third cheaper. SQLite takes no frame from zeros: each names the salt of the log's header.
constexpr sqlite3_int64 log_piece = 4 << 20;  // bytes
constexpr sqlite3_int64 log_frame = 4096 + 24;
constexpr sqlite3_int64 log_spare = 1 << 20;  // less than this is left: one more piece
// From here on the log is written back, before it has to grow; so much is written and synced in two milliseconds.
constexpr sqlite3_int64 log_full = 1 << 20;
constexpr std::uint64_t forgotten_at_once = 250;  // records

// Above the checksum of a row of records: the next one is of the same batch.
constexpr std::uint64_t more_follow = std::uint64_t{1} << 32;

/// Text is bound without a copy and must outlive the step.
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
  void bind_bytes(int at, std::string_view bytes) {
    LOCKSTEP_CHECK(sqlite3_bind_blob64(statement_, at, bytes.data(), bytes.size(), SQLITE_STATIC) == SQLITE_OK);
  }
  /// One that gives no rows, whole.
  bool run() {
    const bool done = sqlite3_step(statement_) == SQLITE_DONE;
    return sqlite3_reset(statement_) == SQLITE_OK && done;
  }
  int step() { return sqlite3_step(statement_); }
  void reset() { sqlite3_reset(statement_); }
  std::uint64_t number(int column) const {
    return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
  }
  bool is_bytes(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_BLOB; }
  /// Text or bytes, as they are.
  std::string text(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return bytes == nullptr ? std::string()
                            : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
};

}  // namespace

/// The raw handle and its prepared statements.
struct SqliteStore::Connection {
  std::string path;
  std::optional<LogFileSystem> files;  // of who writes
  sqlite3* db = nullptr;
  std::uint64_t version = format_version;
  bool known = false;  // what is in it: it is new, or was recovered
  std::uint32_t last_crc = 0;
  Lsn past_end;                // of the past row that was read last; 0 before the first
  std::uint32_t past_crc = 0;  // of the same
  Lsn last;
  Marks marks;
  Lsn oldest;                  // record that is kept; 0 when there is none
  sqlite3_int64 log_size = 0;  // of the file
  sqlite3_int64 log_used = 0;  // by the newest commit
  bool reserves = true;        // the disk had room for it when it was tried last
  // Of append(), which is what a request waits for: prepared once.
  std::optional<Statement> begin, insert, commit;
  RowPacker packer;
  // Of a snapshot, many pieces of which may follow each other.
  std::optional<Statement> put, erase, crc_of_row, mark, crc_of, forget;

  ~Connection() {
    for (auto* each : {&begin, &insert, &commit, &put, &erase, &crc_of_row, &mark, &crc_of, &forget}) {
      each->reset();
    }
    sqlite3_close_v2(db);  // after its statements
  }

  Error error(std::string_view what, ErrorCode code = ErrorCode::data_loss) const {
    return fail(code, cat("journal ", path, ": ", what, ": ", sqlite3_errmsg(db)));
  }

  Status run(const char* sql) {
    if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return error(sql);
  }

  Error damage(std::string_view what) const { return Error{ErrorCode::data_loss, cat("journal ", path, ": ", what)}; }
  Result<std::uint64_t> read_mark(std::string_view name);
  Status read_marks();
  Result<std::vector<SnapshotRow>> read_rows();
  Status take_row(Recovered& out, RecordRow row);
  Status read_records(Recovered& out);
  Status check_rows_and_records(const Recovered& found) const;

  Error access_error() const;
  Result<bool> check_format();
  void keep_log(bool keep) const;
  Status prepare_append();
  Status upgrade();
  Status prepare_snapshot();
  Status reserve_log();
  Status write_back();
  Status write_records(std::span<const Record> row, bool more);
  Status write_row(const SnapshotRow& row);
  Status move_mark(Lsn at);
  Status write_marks();
  Lsn past_begin() const;

  Result<std::uint64_t> number_of(const char* sql) {
    Statement query(db, sql);
    if (!query.prepared() || query.step() != SQLITE_ROW) return error(sql);
    return query.number(0);
  }
};

/// Each row hangs on the one before. The newest one of the past is named by the mark of the snapshot.
Status SqliteStore::Connection::take_row(Recovered& out, RecordRow row) {
  const auto broken = [&](const auto&... what) { return damage(cat(what...)); };
  const Lsn end = row.end;
  const std::uint32_t crc = row.crc;
  const bool is_packed = row.packed;
  const bool is_past = end <= out.snapshot_at;
  const bool is_oldest = is_past && past_end.value == 0;
  const bool is_whole = crc == checksum_of(end, row.more, row.body, is_past ? past_crc : last_crc);
  auto records = unpack(std::move(row));
  // What came before the oldest was forgotten, its checksum too: the oldest is there to check the next with, and is not
  // handed out. Only the very first one hangs on nothing.
  const bool is_anchor = is_oldest && records && records->front().lsn.value > 1;
  const Lsn before = is_past ? past_end : last;
  if (records && !is_oldest && records->front().lsn > before.next()) {
    return broken("record ", before.value + 1, " is missing; the next is ", records->front().lsn.value);
  }
  if (!records || !(is_whole || is_anchor)) {
    return is_packed ? broken("the records up to ", end.value, " failed their checksum")
                     : broken("record ", end.value, " failed its checksum");
  }
  if (!is_oldest && records->front().lsn != before.next()) {
    return broken("record ", records->front().lsn.value, " is there twice");
  }
  if (oldest.value == 0) oldest = records->front().lsn;
  if (is_past) {
    past_end = end;
    past_crc = crc;
    if (end == out.snapshot_at && crc != marks.snapshot_crc) {
      return broken("record ", end.value, " is not the one that the snapshot was made at");
    }
  } else {
    if (end == marks.rows_at && crc != marks.rows_crc) {
      return broken("record ", end.value, " is not the one that the snapshot's rows were written after");
    }
    last = end;
    last_crc = crc;
  }
  if (is_anchor) return {};
  std::ranges::move(*records, std::back_inserter(is_past ? out.past : out.records));
  return {};
}

Status SqliteStore::Connection::prepare_append() {
  LOCKSTEP_CHECK(known);
  if (version < format_version) LOCKSTEP_TRY_STATUS(upgrade());
  begin.emplace(db, "BEGIN IMMEDIATE");
  insert.emplace(db, "INSERT INTO record(lsn, body, crc) VALUES(?, ?, ?)");
  commit.emplace(db, "COMMIT");
  if (!begin->prepared() || !insert->prepared() || !commit->prepared()) return error("cannot prepare to append");
  const auto committed = [](void* self, sqlite3*, const char*, int pages) {
    static_cast<Connection*>(self)->log_used = static_cast<sqlite3_int64>(pages) * log_frame;
    return SQLITE_OK;
  };
  sqlite3_wal_hook(db, committed, this);
  // What was committed before goes into the database first: else every start would lengthen the log once more.
  LOCKSTEP_TRY_STATUS(write_back());
  return reserve_log();
}

/// Whole or not at all, before the first write to a journal that was found sound: who only reads leaves a file as it
/// is. Version 1 could not hold bytes in its column, version 2 had no marks for its rows; its records stay as they are.
Status SqliteStore::Connection::upgrade() {
  LOCKSTEP_TRY_STATUS(run("BEGIN IMMEDIATE"));
  if (version == 1) {
    LOCKSTEP_TRY_STATUS(run(cat("ALTER TABLE record RENAME TO record_1; ", record_table,
                                "INSERT INTO record SELECT lsn, body, crc FROM record_1 ORDER BY lsn; "
                                "DROP TABLE record_1")
                                .c_str()));
  }
  LOCKSTEP_TRY_STATUS(prepare_snapshot());
  marks.rows_at = last;
  marks.rows_crc = last_crc;
  LOCKSTEP_TRY_STATUS(write_marks());
  LOCKSTEP_TRY_STATUS(run(cat("PRAGMA user_version=", format_version, "; COMMIT").c_str()));
  version = format_version;
  return {};
}

Status SqliteStore::Connection::prepare_snapshot() {
  if (put) return {};
  put.emplace(db, "INSERT OR REPLACE INTO snapshot_row VALUES(?, ?, ?, ?, ?)");
  erase.emplace(db, "DELETE FROM snapshot_row WHERE tbl=? AND key=?");
  crc_of_row.emplace(db, "SELECT crc FROM snapshot_row WHERE tbl=? AND key=?");
  mark.emplace(db, "INSERT OR REPLACE INTO mark VALUES(?, ?)");
  crc_of.emplace(db, "SELECT crc FROM record WHERE lsn=?");
  forget.emplace(db, "DELETE FROM record WHERE lsn<?");
  for (const auto* each : {&put, &erase, &crc_of_row, &mark, &crc_of, &forget}) {
    if (!(*each)->prepared()) return error("cannot prepare a snapshot");
  }
  return {};
}

/// The next commit begins the log anew, in the file as it is.
Status SqliteStore::Connection::write_back() {
  LOCKSTEP_TRY_STATUS(run("PRAGMA wal_checkpoint(RESTART)"));
  log_used = 0;
  reserves = true;
  return {};
}

Status SqliteStore::Connection::write_records(std::span<const Record> row, bool more) {
  LOCKSTEP_CHECK(row.front().lsn == last.next() && row.back().lsn.value == last.value + row.size());
  const Lsn end = row.back().lsn;
  const RowPacker::Body body = packer.pack(row);
  const std::uint32_t crc = checksum_of(end, more, body.bytes, last_crc);
  insert->bind(1, end.value);
  body.packed ? insert->bind_bytes(2, body.bytes) : insert->bind(2, body.bytes);
  insert->bind(3, crc | (more ? more_follow : 0));
  if (!insert->run()) return error("cannot append");
  if (oldest.value == 0) oldest = row.front().lsn;
  last = end;
  last_crc = crc;
  return {};
}

Status SqliteStore::Connection::write_row(const SnapshotRow& row) {
  crc_of_row->bind(1, row.table);
  crc_of_row->bind(2, row.key);
  const int found = crc_of_row->step();
  if (found == SQLITE_ROW) marks.rows.remove(static_cast<std::uint32_t>(crc_of_row->number(0)));
  crc_of_row->reset();
  if (found != SQLITE_ROW && found != SQLITE_DONE) return error("cannot read the snapshot");
  Statement& statement = row.value ? *put : *erase;
  statement.bind(1, row.table);
  statement.bind(2, row.key);
  if (row.value) {
    statement.bind(3, *row.value);
    const std::uint32_t crc = row_crc(row.table, row.key, *row.value, row.mod_rev.value);
    statement.bind(4, row.mod_rev.value);
    statement.bind(5, crc);
    marks.rows.add(crc);
  }
  if (!statement.run()) return error("cannot write the snapshot");
  return {};
}

/// The chain goes on from the checksum of the record there.
Status SqliteStore::Connection::move_mark(Lsn at) {
  std::uint32_t crc = last_crc;
  if (at != last) {
    crc_of->bind(1, at.value);
    if (crc_of->step() != SQLITE_ROW) return error(cat("record ", at.value, " of the snapshot is missing"));
    crc = static_cast<std::uint32_t>(crc_of->number(0));
    crc_of->reset();
  }
  marks.snapshot_at = at;
  marks.snapshot_crc = crc;
  return {};
}

Status SqliteStore::Connection::write_marks() {
  const std::pair<std::string_view, std::uint64_t> all[] = {{"snapshot_at", marks.snapshot_at.value},
                                                            {"snapshot_crc", marks.snapshot_crc},
                                                            {"rows_at", marks.rows_at.value},
                                                            {"rows_crc", marks.rows_crc},
                                                            {"rows_count", marks.rows.count},
                                                            {"rows_sum", marks.rows.sum},
                                                            {"marks_crc", marks.crc()}};
  for (const auto& [name, value] : all) {
    mark->bind(1, name);
    mark->bind(2, value);
    if (!mark->run()) return error("cannot write the marks");
  }
  return {};
}

/// The oldest record that is to be kept: the one before those that are handed out.
Lsn SqliteStore::Connection::past_begin() const {
  const std::uint64_t at = marks.snapshot_at.value;
  return Lsn{at > past_records_max ? at - past_records_max : 1};
}

/// Only what lies behind the end of the file is written, so nothing that was committed is touched. A disk that has no
/// room to spare keeps what it has for commits and images: then commits lengthen the log as they come.
Status SqliteStore::Connection::reserve_log() {
  sqlite3_file* log = nullptr;
  if (sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) != SQLITE_OK || log == nullptr ||
      log->pMethods == nullptr || log->pMethods->xFileSize(log, &log_size) != SQLITE_OK) {
    return error("cannot find its log");
  }
  if (log_size >= log_used + log_piece) return {};
  const sqlite3_int64 before = log_size;
  static const std::string zeros(64 << 10, '\0');  // SQLite's files take less than 128 KiB at a time
  for (const sqlite3_int64 end = log_used + log_piece; log_size < end;) {
    const int size =
        static_cast<int>(std::min<sqlite3_int64>(end - log_size, static_cast<sqlite3_int64>(zeros.size())));
    if (log->pMethods->xWrite(log, zeros.data(), size, log_size) != SQLITE_OK) {
      reserves = false;
      log_size = before;
      log->pMethods->xTruncate(log, before);
      return {};
    }
    log_size += size;
  }
  if (log->pMethods->xSync(log, SQLITE_SYNC_NORMAL) == SQLITE_OK) return {};
  return error("cannot sync its log");
}

SqliteStore::SqliteStore(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
SqliteStore::~SqliteStore() = default;

/// An error of the first access: somebody else has it, or it is no database.
Error SqliteStore::Connection::access_error() const {
  switch (sqlite3_errcode(db)) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM: return error("cannot be locked; is another lockstep using it?", ErrorCode::unavailable);
    case SQLITE_ERROR:  // it says something of itself that no SQLite writes
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT: return error("cannot be read");
    default: return error("cannot be opened", ErrorCode::unavailable);
  }
}

/// Looks at what the file says it is before anything is changed in it. True: it is new.
Result<bool> SqliteStore::Connection::check_format() {
  // Exclusive before the first access: then WAL needs no shared-memory file and no second connection can exist.
  LOCKSTEP_TRY_STATUS(run("PRAGMA locking_mode=EXCLUSIVE"));
  LOCKSTEP_TRY_STATUS(run("PRAGMA mmap_size=0"));
  keep_log(true);  // of a file that is refused
  const auto tables = number_of("SELECT count(*) FROM sqlite_master");
  if (!tables) return std::unexpected(access_error());
  const std::uint64_t id = LOCKSTEP_TRY(number_of("PRAGMA application_id"));
  const std::uint64_t found = LOCKSTEP_TRY(number_of("PRAGMA user_version"));
  if (*tables == 0 && id == 0) return true;
  if (id != application_id) {
    return fail(ErrorCode::data_loss, cat("journal ", path, ": this file is not a lockstep journal"));
  }
  version = found;
  if (version >= oldest_version && version <= format_version) return false;
  const std::string_view who = version > format_version ? "the newer lockstep that wrote it" : "the one that wrote it";
  return fail(
      ErrorCode::data_loss,
      cat("journal ", path, ": format version ", version, "; this lockstep reads versions ", oldest_version, " to ",
          format_version, ". Nothing was changed in it; start ", who, ", or choose another data directory"));
}

/// Whether what is in the log stays there when the file is closed.
void SqliteStore::Connection::keep_log(bool keep) const {
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep ? 1 : 0, nullptr);
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path, const char* vfs) {
  auto connection = std::make_unique<Connection>();
  connection->path = path;
  connection->files.emplace(vfs, vfs == nullptr);
  if (sqlite3_open_v2(path.c_str(), &connection->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                      connection->files->name()) != SQLITE_OK) {
    return connection->error("cannot be opened", ErrorCode::unavailable);
  }
  const bool is_new = LOCKSTEP_TRY(connection->check_format());
  connection->keep_log(false);
  if (!connection->run("PRAGMA journal_mode=WAL")) return connection->access_error();
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA synchronous=FULL"));
  // A checkpoint in the middle of a commit would add its two syncs to one request's latency; ours run between commits.
  LOCKSTEP_TRY_STATUS(connection->run("PRAGMA wal_autocheckpoint=0"));
  if (!connection->run("BEGIN EXCLUSIVE")) return connection->access_error();
  if (is_new) {
    LOCKSTEP_TRY_STATUS(connection->run(cat("PRAGMA application_id=", application_id).c_str()));
    LOCKSTEP_TRY_STATUS(connection->run(cat("PRAGMA user_version=", format_version).c_str()));
    LOCKSTEP_TRY_STATUS(connection->run(record_table));
    LOCKSTEP_TRY_STATUS(connection->run(
        "CREATE TABLE snapshot_row(tbl TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, mod_rev INTEGER NOT NULL,"
        " crc INTEGER NOT NULL, PRIMARY KEY(tbl, key)) STRICT, WITHOUT ROWID;"
        "CREATE TABLE mark(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID"));
    LOCKSTEP_TRY_STATUS(connection->prepare_snapshot());
    LOCKSTEP_TRY_STATUS(connection->write_marks());
    connection->known = true;
  }
  LOCKSTEP_TRY_STATUS(connection->run("COMMIT"));
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(connection)));
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::open_to_read(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return fail(ErrorCode::not_found, cat("there is no journal ", path));
  auto connection = std::make_unique<Connection>();
  connection->path = path;
  struct stat log{};
  const bool has_log = ::stat(cat(path, "-wal").c_str(), &log) == 0;
  if (sqlite3_open_v2(path.c_str(), &connection->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr) !=
      SQLITE_OK) {
    return connection->error("cannot be opened", ErrorCode::unavailable);
  }
  if (LOCKSTEP_TRY(connection->check_format())) {
    return fail(ErrorCode::data_loss, cat("journal ", path, ": this file is empty"));
  }
  connection->keep_log(has_log);  // one that the reading made is taken away again
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(connection)));
}

Result<std::uint64_t> SqliteStore::Connection::read_mark(std::string_view name) {
  Statement query(db, "SELECT value FROM mark WHERE name=?");
  if (!query.prepared()) return error("cannot read the marks");
  query.bind(1, name);
  switch (query.step()) {
    case SQLITE_ROW: return query.number(0);
    case SQLITE_DONE: return damage(cat("the mark ", name, " is missing"));
    default: return error("cannot read the marks");
  }
}

Status SqliteStore::Connection::read_marks() {
  const auto crc_mark = [&](std::string_view name) -> Result<std::uint32_t> {
    return static_cast<std::uint32_t>(LOCKSTEP_TRY(read_mark(name)));
  };
  marks = {};
  marks.snapshot_at = Lsn{LOCKSTEP_TRY(read_mark("snapshot_at"))};
  marks.snapshot_crc = LOCKSTEP_TRY(crc_mark("snapshot_crc"));
  if (version < 3) {
    if (LOCKSTEP_TRY(number_of("SELECT count(*) FROM mark")) == 2) return {};
    return damage(
        cat("it says format version ", version, " and has marks of a later one; it is a mix of older and newer pages"));
  }
  marks.rows_at = Lsn{LOCKSTEP_TRY(read_mark("rows_at"))};
  marks.rows_crc = LOCKSTEP_TRY(crc_mark("rows_crc"));
  marks.rows.count = LOCKSTEP_TRY(read_mark("rows_count"));
  marks.rows.sum = LOCKSTEP_TRY(read_mark("rows_sum"));
  if (LOCKSTEP_TRY(crc_mark("marks_crc")) == marks.crc()) return {};
  return damage("the marks of the snapshot failed their checksum");
}

Result<std::vector<SnapshotRow>> SqliteStore::Connection::read_rows() {
  std::vector<SnapshotRow> out;
  RowSet found;
  Statement rows(db, "SELECT tbl, key, value, mod_rev, crc FROM snapshot_row ORDER BY tbl, key");
  int step = SQLITE_DONE;
  while ((step = rows.step()) == SQLITE_ROW) {
    SnapshotRow row{rows.text(0), rows.text(1), rows.text(2), Rev{rows.number(3)}};
    const std::uint32_t crc = row_crc(row.table, row.key, *row.value, row.mod_rev.value);
    if (crc != rows.number(4)) {
      return damage(cat("snapshot row ", row.table, "/", row.key, " failed its checksum"));
    }
    found.add(crc);
    out.push_back(std::move(row));
  }
  if (step != SQLITE_DONE) return error("cannot read the snapshot");
  if (version < 3) {
    marks.rows = found;
  } else if (found != marks.rows) {
    return damage(cat("the rows of the snapshot are not those that were written: expected ", marks.rows.count,
                      " rows with the sum ", marks.rows.sum, ", found ", found.count, " with the sum ", found.sum,
                      "; it is a mix of older and newer pages"));
  }
  return out;
}

Status SqliteStore::Connection::read_records(Recovered& out) {
  last = marks.snapshot_at;
  last_crc = marks.snapshot_crc;
  past_end = oldest = Lsn{};
  past_crc = 0;
  bool more = false;
  Statement records(db, "SELECT lsn, body, crc FROM record ORDER BY lsn");
  int step = SQLITE_DONE;
  while ((step = records.step()) == SQLITE_ROW) {
    const std::uint64_t crc = records.number(2);
    more = (crc & more_follow) != 0;
    LOCKSTEP_TRY_STATUS(take_row(
        out, {Lsn{records.number(0)}, records.text(1), records.is_bytes(1), static_cast<std::uint32_t>(crc), more}));
  }
  if (step != SQLITE_DONE) return error("cannot read the records");
  if (!more) return {};
  return damage(cat("record ", last.value, " is not the last of its batch; the next is missing"));
}

/// A row may be newer than the mark: a snapshot was cut short, and replay brings the other rows up to it. It cannot be
/// newer than every record, and neither can one that is gone: `rows_at` knows of both.
Status SqliteStore::Connection::check_rows_and_records(const Recovered& found) const {
  for (const SnapshotRow& row : found.rows) {
    if (row.mod_rev.value <= last.value) continue;
    return damage(cat("snapshot row ", row.table, "/", row.key, " is of rev ", row.mod_rev.value,
                      "; the last record is ", last.value));
  }
  if (last < marks.rows_at) {
    return damage(cat("the rows of the snapshot were written after record ", marks.rows_at.value,
                      "; the last record is ", last.value));
  }
  if (past_end.value == 0 || past_end == marks.snapshot_at) return {};
  return damage(cat("record ", past_end.value + 1, " is missing; the snapshot was made at ", marks.snapshot_at.value));
}

Result<Recovered> SqliteStore::recover() {
  Connection& c = *connection_;
  Statement integrity(c.db, "PRAGMA quick_check(1)");
  if (!integrity.prepared() || integrity.step() != SQLITE_ROW) return c.error("failed its integrity check");
  if (const std::string found = integrity.text(0); found != "ok") {
    return c.damage(cat("failed its integrity check: ", found));
  }
  Recovered out;
  LOCKSTEP_TRY_STATUS(c.read_marks());
  out.snapshot_at = c.marks.snapshot_at;
  out.rows = LOCKSTEP_TRY(c.read_rows());
  LOCKSTEP_TRY_STATUS(c.read_records(out));
  LOCKSTEP_TRY_STATUS(c.check_rows_and_records(out));
  c.known = true;
  return out;
}

Status SqliteStore::append(std::span<const Record> records) {
  Connection& c = *connection_;
  if (records.empty()) return {};
  if (!c.insert) LOCKSTEP_TRY_STATUS(c.prepare_append());
  if (c.reserves && c.log_size - c.log_used < log_spare) LOCKSTEP_TRY_STATUS(c.reserve_log());
  // One row is a transaction by itself.
  const bool is_one = row_length(records) == records.size();
  if (!is_one && !c.begin->run()) return c.error("cannot begin to append");
  while (!records.empty()) {
    const std::size_t length = row_length(records);
    LOCKSTEP_TRY_STATUS(c.write_records(records.first(length), length < records.size()));
    records = records.subspan(length);
  }
  if (!is_one && !c.commit->run()) return c.error("cannot commit");
  return {};
}

Status SqliteStore::snapshot(const SnapshotPiece& piece) {
  Connection& c = *connection_;
  if (!c.insert) LOCKSTEP_TRY_STATUS(c.prepare_append());
  LOCKSTEP_TRY_STATUS(c.prepare_snapshot());
  LOCKSTEP_CHECK(!piece.at || (*piece.at >= c.marks.snapshot_at && *piece.at <= c.last));
  if (!c.begin->run()) return c.error("cannot begin a snapshot");
  for (const SnapshotRow& row : piece.rows) {
    LOCKSTEP_CHECK(row.mod_rev.value <= c.last.value);  // its record is in the journal already
    LOCKSTEP_TRY_STATUS(c.write_row(row));
  }
  c.marks.rows_at = c.last;
  c.marks.rows_crc = c.last_crc;
  if (piece.at) LOCKSTEP_TRY_STATUS(c.move_mark(*piece.at));
  LOCKSTEP_TRY_STATUS(c.write_marks());
  if (!c.commit->run()) return c.error("cannot commit a snapshot");
  return {};
}

Result<std::uint64_t> SqliteStore::backup(const std::string& file) const {
  const Connection& c = *connection_;
  const auto cannot = [&](std::string_view what, std::string_view why) {
    return fail(ErrorCode::unavailable, cat("the copy ", file, " ", what, ": ", why));
  };
  if (::access(file.c_str(), F_OK) == 0) {
    return fail(ErrorCode::already_exists, cat("the file ", file, " is there already; a copy goes into a new one"));
  }
  // Under another name until it is on disk: who finds it under its own has all of it.
  const std::string part = cat(file, ".part");
  ::unlink(part.c_str());
  Status done;
  {
    Statement copy(c.db, "VACUUM INTO ?");
    copy.bind(1, part);
    if (copy.step() != SQLITE_DONE) done = cannot("cannot be written", sqlite3_errmsg(c.db));
  }
  struct stat facts{};
  if (done) {
    const std::size_t slash = file.find_last_of('/');
    const int copied = ::open(part.c_str(), O_RDONLY | O_CLOEXEC);
    const int folder = ::open(slash == std::string::npos ? "." : cat(file.substr(0, slash), "/").c_str(),
                              O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool kept = copied >= 0 && folder >= 0 && ::fstat(copied, &facts) == 0 && ::fsync(copied) == 0 &&
                      ::renameat2(AT_FDCWD, part.c_str(), AT_FDCWD, file.c_str(), RENAME_NOREPLACE) == 0 &&
                      ::fsync(folder) == 0;
    if (!kept) done = cannot("cannot be kept", std::strerror(errno));
    if (copied >= 0) ::close(copied);
    if (folder >= 0) ::close(folder);
  }
  if (done) return static_cast<std::uint64_t>(facts.st_size);
  ::unlink(part.c_str());
  return std::unexpected(done.error());
}

bool SqliteStore::untidy() const {
  const Connection& c = *connection_;
  return c.log_used >= log_full || (c.oldest.value > 0 && c.oldest < c.past_begin());
}

Status SqliteStore::tidy() {
  Connection& c = *connection_;
  if (c.log_used >= log_full) return c.write_back();
  if (c.oldest.value == 0 || c.oldest >= c.past_begin()) return {};
  LOCKSTEP_TRY_STATUS(c.prepare_snapshot());
  const Lsn end{std::min(c.past_begin().value, c.oldest.value + forgotten_at_once)};
  c.forget->bind(1, end.value);
  if (!c.forget->run()) return c.error("cannot forget old records");
  c.oldest = end;
  return {};
}

}  // namespace lockstep
