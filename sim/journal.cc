// The orchestrator's journal: the real store on the simulated disk, what may go wrong with it, and what must be found
// at each start (S17, S18; reference/consistency §4.6).

#include "sim/simulation.h"

#include <algorithm>

#include "base/digest.h"
#include "base/text.h"
#include "state/table.h"

namespace lockstep::sim {

namespace {

const std::string journal_file = "journal.db";

std::string_view name_of(DiskFault fault) {
  switch (fault) {
    case DiskFault::power_cut: return "orchestrator_crash";
    case DiskFault::error:
    case DiskFault::error_lasting: return "disk_io_error";
    case DiskFault::sync_dropped: return "disk_sync_dropped";
    case DiskFault::sync_kept: return "disk_sync_kept";
    case DiskFault::full: return "disk_full";
    case DiskFault::lying_sync: return "disk_lying_sync";
  }
  return "";
}

/// How many domains a commit changes: by the tables that it names.
std::size_t domains_of(std::string_view commit) {
  static constexpr std::string_view domains[] = {"device.",     "memory.",    "model.",
                                                 "processing.", "inference.", "postprocessing."};
  static constexpr std::string_view table = R"("table":")";
  std::set<std::string_view> found;
  for (std::size_t at = commit.find(table); at != std::string_view::npos; at = commit.find(table, at)) {
    at += table.size();
    for (const std::string_view each : domains) {
      if (commit.substr(at).starts_with(each)) found.insert(each);
    }
  }
  return found.size();
}

/// The oldest of all hangs on no other one.
bool same(const std::vector<Record>& these, const std::vector<Record>& those) {
  return std::ranges::equal(these, those, [](const Record& one, const Record& other) {
    return one.lsn == other.lsn && (one.body == other.body || one.lsn == Lsn{1});
  });
}

}  // namespace

/// Each kind at most once, somewhere within the next calls: while it appends, writes a snapshot, or starts again.
void World::plan_disk_faults() {
  const DiskFault once[] = {DiskFault::power_cut, DiskFault::error, DiskFault::error_lasting, DiskFault::sync_dropped,
                            DiskFault::sync_kept, DiskFault::full,  DiskFault::lying_sync};
  for (const DiskFault each : once) {
    const Nanos when = disk_faults_.between(0, options_.duration * 9 / 10);
    const Nanos repaired = when + disk_faults_.between(seconds(1), seconds(8));
    const int calls = static_cast<int>(disk_faults_.between(0, 60));
    if (disk_faults_.chance(600'000)) continue;
    if (permits(name_of(each))) at(when, [this, each, calls] { disk_.plan(each, calls); });
    at(repaired, [this] { disk_.repair(); });
  }
  at(options_.duration + 1, [this] { disk_.repair(); });
}

std::optional<Recovered> World::open_journal() {
  disk_.power_on();
  if (hits(disk_faults_, 200'000) && permits("disk_bit_rot")) judge_rot();
  if (hits(disk_faults_, 200'000) && permits("disk_log_rot")) judge_log_rot();
  if (hits(disk_ends_, 150'000) && permits("disk_truncated")) judge_truncated();
  if (hits(disk_faults_, 100'000) && permits("start_failed")) {
    disk_.plan(disk_faults_.chance(500'000) ? DiskFault::power_cut : DiskFault::error,
               static_cast<int>(disk_faults_.between(0, 60)));
  }
  // The first commit of a life writes back what the log holds: the database is synced, and the log begins anew.
  if (hits(disk_faults_, 150'000) && permits("disk_lying_sync")) {
    disk_.plan(DiskFault::lying_sync, static_cast<int>(disk_faults_.between(0, 60)));
  }
  disk_.take_failed();
  disk_.take_sync_failed();
  auto store = SqliteStore::open(journal_file, vfs_.name().c_str());
  Result<Recovered> recovered = store ? (*store)->recover() : Result<Recovered>(store.error());
  if (recovered) {
    if (disk_.take_sync_failed()) violation("a sync failed, and the start said nothing");
    store_ = *std::move(store);
    return *std::move(recovered);
  }
  if (!disk_.take_failed()) {
    violation(cat("recovery failed: ", recovered.error().message));
    return std::nullopt;
  }
  fault("start_failed");
  trace("orchestrator", recovered.error().message);
  disk_.kill();
  start_again();
  return std::nullopt;
}

/// S16, S17: everything that the store said is on disk, and of what it was given last all or nothing; and the state is
/// the one that was live when it was written.
void World::judge_recovered(Lsn last) {
  if (last.value < acknowledged_.value) {
    violation(cat("rev ", acknowledged_.value, " was acknowledged, recovered was ", last.value));
  }
  if (last != written_ && !attempted_.contains(last)) {
    violation(cat("the journal ends at rev ", last.value, ", within a batch; ", written_.value, " was written"));
  }
  if (!attempted_.empty()) fault(last > written_ ? "disk_kept_unacknowledged" : "disk_lost_unacknowledged");
  const auto known = digests_.try_emplace(last.value, machine_->digest()).first;
  if (known->second != machine_->digest()) {
    violation(cat("replay to rev ", last.value, " gives another state than it had in life"));
  }
  digests_.erase(digests_.upper_bound(last.value), digests_.end());
}

void World::judge_starts(const Recovered& recovered) {
  using Rows = std::map<std::pair<std::string, std::string>, std::string>;
  Recovered journal = recovered;
  const auto start = [&]() -> Result<Rows> {
    Orchestrator machine(settings_);
    const Lsn last = LOCKSTEP_TRY(machine.recover(journal));
    Loop<Orchestrator> loop(machine, last);
    loop.input({now_, wall(), in::Started{"sim-cluster", sha256_hex(secret)}, {}});
    for (Record& each : loop.take_batch()) journal.records.push_back(std::move(each));
    Rows rows;
    for (RowText& each : dump(machine.tables())) {
      if (each.table != machine.tables().identity.name()) rows[{each.table, each.key}] = std::move(each.value);
    }
    // What is to be told is told anew in each life, under a rev of that life; what was confirmed stays.
    for (const auto& [key, entry] : machine.tables().propagation.deliveries.entries()) {
      rows[{std::string(machine.tables().propagation.deliveries.name()), key}] =
          cat(entry.row.confirmed_by.value, " ", entry.row.confirmed_rev.value, " ", entry.row.confirmed.text);
    }
    return rows;
  };
  const auto once = start();
  const auto twice = start();
  if (!once || !twice) return violation(cat("S18: ", (once ? twice : once).error().message));
  for (const auto& [name, value] : *once) {
    const auto place = twice->find(name);
    if (place != twice->end() && place->second == value) continue;
    violation(cat("S18: ", name.first, " ", name.second, " is ", value, ", and after another start ",
                  place == twice->end() ? "gone" : place->second));
  }
  if (once->size() < twice->size()) violation("S18: another start makes rows that the first did not");
}

bool World::append(const std::vector<Record>& batch) {
  attempted_.insert(batch.back().lsn);
  if (!survives(store_->append(batch))) return false;
  written_ = batch.back().lsn;
  for (const Record& each : batch) report_.spanning += domains_of(each.body) > 1 ? 1 : 0;
  report_.transactions = report_.spanning + report_.aborted;
  attempted_.clear();
  if (disk_.lies() && disk_faults_.chance(50'000)) judge_lies();
  return true;
}

bool World::snapshot(const SnapshotPiece& piece) {
  if (hits(disk_faults_, 30'000) && permits("orchestrator_crash")) {
    disk_.plan(DiskFault::power_cut, static_cast<int>(disk_faults_.between(0, 60)));
  }
  if (!survives(store_->snapshot(piece))) return false;
  if (piece.at) ++report_.snapshots;
  if (disk_.lies() && disk_faults_.chance(100'000)) judge_lies();
  return true;
}

bool World::tidy() {
  if (!store_->untidy()) return true;
  if (!survives(store_->tidy())) return false;
  if (disk_.lies() && disk_faults_.chance(100'000)) judge_lies();
  return true;
}

bool World::survives(const Status& status) {
  const bool failed = disk_.take_failed();
  const bool sync_failed = disk_.take_sync_failed();
  if (disk_.is_off()) {
    crash_orchestrator("the power failed");
    return false;
  }
  if (sync_failed && status) violation("a sync failed, and the journal said nothing");
  if (status) return true;
  if (!failed) violation(cat("the journal failed on a sound disk: ", status.error().message));
  crash_orchestrator(status.error().message);  // as the server: it ends and looks what is really there
  return false;
}

Result<World::Found> World::found_on(Disk& disk) {
  const DiskVfs vfs(disk, now_);
  const auto store = LOCKSTEP_TRY(SqliteStore::open(journal_file, vfs.name().c_str()));
  Found out{LOCKSTEP_TRY(store->recover()), {}, ""};
  Orchestrator again(settings_);
  out.last = LOCKSTEP_TRY(again.recover(out.recovered));
  out.digest = again.digest();
  return out;
}

void World::judge_found(const Found& found, std::string_view what) {
  const auto known = digests_.find(found.last.value);
  if (known != digests_.end() && known->second == found.digest) return;
  violation(cat(what, " left rev ", found.last.value, " as it never was", known == digests_.end() ? ": unknown" : "",
                ", snapshot at ", found.recovered.snapshot_at.value, ", written ", written_.value));
}

/// A disk that says "synced" and has not can lose what was acknowledged; nobody can prevent it. What is found must
/// still be refused, or be a state that there was. It lies on: more that is older than it should be comes together.
void World::judge_lies() {
  Disk left = disk_.left_by_lies();
  const auto found = found_on(left);
  if (found) return judge_found(*found, "a lying disk");
  fault("disk_lies_refused");
  if (found.error().code != ErrorCode::data_loss) violation(cat("a lying disk: ", found.error().message));
}

/// One bit of the log turns over. SQLite drops what stands there and all after it, also where the database has some of
/// it already. The start must refuse that, or find a state that there was.
void World::judge_log_rot() {
  Disk sound = disk_.copy();
  Disk rotten = disk_.copy();
  Disk::File* const log = rotten.file(cat(journal_file, "-wal"));
  const std::size_t last = log == nullptr ? std::string::npos : log->seen.find_last_not_of('\0');
  if (last == std::string::npos) return;
  const auto before = found_on(sound);
  if (!before) return violation(cat("a copy of the disk: ", before.error().message));
  const auto place = static_cast<std::size_t>(disk_faults_.between(0, static_cast<std::int64_t>(last)));
  log->seen[place] = static_cast<char>(log->seen[place] ^ (1 << disk_faults_.between(0, 7)));
  log->durable = log->seen;
  const auto after = found_on(rotten);
  if (after && after->last == before->last && after->digest == before->digest) return;  // of no frame that counts
  fault("disk_log_rot");
  if (after) return judge_found(*after, "a bit of the log that turned over");
  if (after.error().code != ErrorCode::data_loss) violation(cat("a bit of the log: ", after.error().message));
}

/// One bit of what was written back into the database turns over. The start must refuse it, unless the bit is of no
/// record: then nothing is different.
void World::judge_rot() {
  Disk rotten = disk_.copy();
  const auto before = found_on(rotten);  // and its end writes the log back
  if (!before) return violation(cat("a copy of the disk: ", before.error().message));
  Disk::File* const file = rotten.file(journal_file);
  const auto somewhere = static_cast<std::size_t>(disk_faults_.between(0, std::ssize(file->seen) - 1));
  std::size_t place = somewhere;
  if (disk_faults_.chance(700'000)) {
    const std::size_t record = file->seen.find(R"({"rev":)", somewhere);
    if (record != std::string::npos) place = record + static_cast<std::size_t>(disk_faults_.between(0, 12));
  }
  file->seen[place] = static_cast<char>(file->seen[place] ^ (1 << disk_faults_.between(0, 7)));
  file->durable = file->seen;
  judge_damaged(*before, rotten, "disk_bit_rot", cat("a bit turned over at byte ", place));
}

/// The database is shorter than it was: by a file system that lost its end, or by a copy that was not finished. Of
/// nothing at all nobody can tell that it was more.
void World::judge_truncated() {
  Disk shorter = disk_.copy();
  const auto before = found_on(shorter);  // and its end writes the log back
  if (!before) return violation(cat("a copy of the disk: ", before.error().message));
  Disk::File* const file = shorter.file(journal_file);
  if (file->seen.size() < 2) return;
  const std::size_t whole = file->seen.size();
  file->seen.resize(static_cast<std::size_t>(disk_ends_.between(1, std::ssize(file->seen) - 1)));
  file->durable = file->seen;
  judge_damaged(*before, shorter, "disk_truncated", cat("of ", whole, " bytes ", file->seen.size(), " were left"));
}

void World::judge_damaged(const Found& before, Disk& disk, std::string_view kind, const std::string& what) {
  const auto after = found_on(disk);
  if (!after) {
    fault(kind);
    if (after.error().code != ErrorCode::data_loss) violation(cat(what, ": ", after.error().message));
    return;
  }
  if (after->digest != before.digest || !same(after->recovered.records, before.recovered.records) ||
      !same(after->recovered.past, before.recovered.past)) {
    violation(cat(what, ", and nobody saw it"));
  }
}

}  // namespace lockstep::sim
