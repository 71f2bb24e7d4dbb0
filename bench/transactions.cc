#include "bench/transactions.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "base/text.h"
#include "bench/commit_peers.h"
#include "bench/commits.h"
#include "bench/record_mix.h"
#include "bench/sqlite_floor.h"
#include "journal/sqlite_store.h"
#include "orchestrator/machine.h"
#include "runtime/upkeep.h"

namespace lockstep::bench {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t batch_records = 1000;

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// A journal in a folder of its own, and the commits that go into it.
class Journal {
 public:
  static Result<std::unique_ptr<Journal>> make(const std::string& file) {
    auto store = LOCKSTEP_TRY(SqliteStore::open(file));
    LOCKSTEP_TRY(store->recover());
    return std::unique_ptr<Journal>(new Journal(std::move(store)));
  }

  /// `count` more commits, on disk, so many with one sync, and, where one is given, in a machine.
  Status append(std::size_t count, Orchestrator* machine, std::size_t at_once = batch_records) {
    for (std::size_t left = count; left > 0;) {
      std::vector<Record> batch;
      for (; left > 0 && batch.size() < at_once; --left) batch.push_back(next(machine));
      LOCKSTEP_TRY_STATUS(store_->append(batch));
      while (store_->untidy()) LOCKSTEP_TRY_STATUS(store_->tidy());
    }
    return {};
  }
  Record next(Orchestrator* machine) {
    const Commit commit = mix_.next();
    if (machine != nullptr) machine->apply(commit);
    last_ = Lsn{commit.rev.value};
    return {last_, encode(commit)};
  }
  SqliteStore& store() { return *store_; }
  Lsn last() const { return last_; }

 private:
  explicit Journal(std::unique_ptr<SqliteStore> store) : store_(std::move(store)) {}
  std::unique_ptr<SqliteStore> store_;
  RecordMix mix_;
  Lsn last_;
};

constexpr Placement one_core{1, 1};
constexpr Placement two_cores{1, 0};

/// Those that are there, running until this goes.
using Started = std::vector<std::pair<std::string, std::unique_ptr<CommitPeer>>>;

/// Where the peers of a row come from, and where they write.
struct Peers {
  Programs programs;
  std::string folder;

  Result<Started> start(Placement placement) const {
    Started out;
    for (const CommitPeerKind& each : commit_peers()) {
      auto peer = each.start(programs, folder, placement);
      if (peer) {
        out.emplace_back(each.name, *std::move(peer));
      } else {
        LOCKSTEP_TRY_STATUS(left_out(each.name, peer.error()));
      }
    }
    return out;
  }
};

/// Of each that is there, the middle one of its figures; nothing when none is.
std::optional<Ordered<double>> medians(const Started& peers, const std::vector<std::vector<double>>& figures) {
  if (peers.empty()) return std::nullopt;
  Ordered<double> out;
  for (std::size_t i = 0; i < peers.size(); ++i) out.items.emplace_back(peers[i].first, percentile(figures[i], 0.5));
  return out;
}

constexpr std::array forms{Form::packed, Form::json};

std::string row_name(std::string_view name, Form form) { return cat(name, form == Form::packed ? "" : "_json"); }

/// One after the other: from the first step to the decision that is durable and on its way to the worker. Ours and the
/// floor in both forms and the peers take turns, since a shared disk changes within a run.
Status commit_rows(const std::string& folder, int commits, const Peers& peers, Report& report) {
  constexpr int rounds = 5;
  const int samples = std::max(100, commits / 20) / rounds;
  const int warm = std::max(10, samples / 10);
  for (const auto& [name, placement] : {std::pair("commit_1", one_core), std::pair("commit_1_two_cores", two_cores)}) {
    const Started running = LOCKSTEP_TRY(peers.start(placement));
    std::map<Form, std::vector<double>> ours, floor;
    std::vector<std::vector<double>> theirs(running.size());
    for (int round = 0; round < rounds; ++round) {
      for (const Form form : forms) {
        const std::string file = cat(folder, "/", row_name(name, form), "-", round);
        const auto bare = LOCKSTEP_TRY(commit_us({Kind::floor, form}, placement, samples, file + ".bare"));
        floor[form].insert(floor[form].end(), bare.begin(), bare.end());
        const auto own = LOCKSTEP_TRY(commit_us({Kind::ours, form}, placement, samples, file + ".db"));
        ours[form].insert(ours[form].end(), own.begin(), own.end());
      }
      for (std::size_t i = 0; i < running.size(); ++i) {
        const CommitFigures taken = LOCKSTEP_TRY(running[i].second->run(1, samples + warm));
        theirs[i].insert(theirs[i].end(), taken.us.begin() + warm, taken.us.end());
      }
    }
    for (const Form form : forms) {
      report.rows.push_back({.name = row_name(name, form), .unit = "us"});
      Row& row = report.rows.back();
      row.value = percentile(ours[form], 0.5);
      row.p50 = row.value;
      row.p99 = percentile(ours[form], 0.99);
      row.runs = ours[form].size();
      row.floor = percentile(floor[form], 0.5);
      row.target = 1.5 * *row.floor;
      row.peers = medians(running, theirs);
    }
  }
  return {};
}

/// 64 in flight, in three rounds: ours and the floor in both forms, and the peers, which do as many in all three as we
/// do in one.
Status commit_64(const std::string& folder, int commits, const Peers& peers, Report& report) {
  std::map<Form, std::vector<double>> ours, floor, one_us;
  const Started running = LOCKSTEP_TRY(peers.start({}));
  std::vector<std::vector<double>> theirs(running.size());
  for (int round = 0; round < 3; ++round) {
    for (const Form form : forms) {
      std::vector<double> ignored;
      const std::string file = cat(folder, "/", row_name("many", form), "-", round);
      ours[form].push_back(LOCKSTEP_TRY(commits_per_s({Kind::ours, form}, 64, commits, file + ".db", one_us[form])));
      floor[form].push_back(LOCKSTEP_TRY(commits_per_s({Kind::floor, form}, 64, commits, file + ".bare", ignored)));
    }
    for (std::size_t i = 0; i < running.size(); ++i) {
      theirs[i].push_back(LOCKSTEP_TRY(running[i].second->run(64, commits / 3)).per_s);
    }
  }
  for (const Form form : forms) {
    const std::string name = row_name("commit_64", form);
    report.rows.push_back({.name = name, .unit = "transactions/s"});
    Row& row = report.rows.back();
    row.value = percentile(ours[form], 0.5);
    row.p50 = row.value;
    row.runs = ours[form].size();
    row.floor = percentile(floor[form], 0.5);
    row.better = "higher";
    row.peers = medians(running, theirs);
    row.target = target_beside(row.peers.value_or(Ordered<double>{})).value_or(0.5 * *row.floor);
    // What is aimed at whatever the peers do.
    const double share = 100 * row.value / *row.floor;
    report.rows.push_back({.name = name + "_of_floor", .unit = "% of the floor", .value = share, .runs = row.runs});
    report.rows.back().target = 50;
    report.rows.back().better = "higher";
    report.rows.push_back({.name = name + "_decision", .unit = "us", .value = percentile(one_us[form], 0.5)});
    report.rows.back().p50 = report.rows.back().value;
    report.rows.back().p99 = percentile(one_us[form], 0.99);
    report.rows.back().runs = one_us[form].size();
  }
  return {};
}

/// A journal of so many records. A sync for each would take minutes on a disk, so it is made in memory where there is
/// room, and copied.
Status make_journal(const std::string& file, std::size_t records, std::size_t at_once) {
  constexpr const char* memory = "/dev/shm";
  std::error_code error;
  const bool in_memory = fs::space(memory, error).available > (std::uintmax_t{4} << 30) && !error;
  const std::string first = in_memory ? cat(memory, "/lockstep-bench-", ::getpid(), ".db") : file;
  {
    const auto journal = LOCKSTEP_TRY(Journal::make(first));
    LOCKSTEP_TRY_STATUS(journal->append(records, nullptr, at_once));
  }
  if (!in_memory) return {};
  fs::copy_file(first, file, error);
  fs::remove(first);
  if (error) return fail(ErrorCode::unavailable, cat("cannot write ", file, ": ", error.message()));
  return {};
}

/// The start of a server whose journal has that many records and no snapshot: as it would be if none were ever taken.
Status recovery(const std::string& folder, const std::string& name, std::size_t at_once, int records, Report& report) {
  const std::string file = cat(folder, "/", name, ".db");
  std::string digest;
  LOCKSTEP_TRY_STATUS(make_journal(file, static_cast<std::size_t>(records), at_once));
  const auto size = static_cast<double>(fs::file_size(file));
  std::vector<double> floor, read, replay, whole;
  for (int run = 0; run < 3; ++run) {
    auto begin = Clock::now();
    LOCKSTEP_TRY(read_plainly(file));
    floor.push_back(ms_since(begin));
    begin = Clock::now();
    const auto store = LOCKSTEP_TRY(SqliteStore::open(file));
    const Recovered recovered = LOCKSTEP_TRY(store->recover());
    read.push_back(ms_since(begin));
    Orchestrator machine{Settings{}};
    const auto replaying = Clock::now();
    const Lsn last = LOCKSTEP_TRY(machine.recover(recovered));
    replay.push_back(ms_since(replaying));
    whole.push_back(read.back() + replay.back());
    if (last.value != static_cast<std::uint64_t>(records)) return fail(ErrorCode::internal, "records are missing");
    const std::string again = machine.digest();
    if (!digest.empty() && again != digest) return fail(ErrorCode::internal, "two starts gave two states");
    digest = again;
  }
  fs::remove(file);
  const auto row = [&](std::string what, const std::vector<double>& samples) -> Row& {
    report.rows.push_back({.name = std::move(what), .unit = "ms"});
    report.rows.back().value = percentile(samples, 0.5);
    report.rows.back().p50 = report.rows.back().value;
    report.rows.back().runs = samples.size();
    return report.rows.back();
  };
  Row& all = row(name, whole);
  all.floor = percentile(floor, 0.5);
  all.target = 5000;
  row(cat(name, "_read"), read).floor = percentile(floor, 0.5);
  row(cat(name, "_replay"), replay);
  report.rows.push_back({.name = cat(name, "_file"), .unit = "MiB", .value = size / (1 << 20)});
  return {};
}

/// As the server does it: beside the loop the disk takes one batch, then one piece of a snapshot or of clearing up. A
/// commit waits longest when it comes just after a batch was taken: for that batch, for the piece, and for its own.
Status snapshot_pause(const std::string& folder, int rows, Report& report) {
  const auto journal = LOCKSTEP_TRY(Journal::make(cat(folder, "/snapshot.db")));
  Orchestrator machine{Settings{}};
  // An image is six commits and four new rows.
  LOCKSTEP_TRY_STATUS(journal->append(static_cast<std::size_t>(rows) * 6 / 4, &machine));
  Upkeep upkeep;
  SqliteStore& store = journal->store();
  std::vector<double> paused, waited, alone;
  for (int i = 0; i < 500; ++i) {
    const std::vector<Record> one{journal->next(&machine)};
    const auto begin = Clock::now();
    LOCKSTEP_TRY_STATUS(store.append(one));
    alone.push_back(ms_since(begin));
  }
  while (store.untidy()) LOCKSTEP_TRY_STATUS(store.tidy());
  upkeep.ask();
  const auto whole = Clock::now();
  while (upkeep.due() || store.untidy()) {
    const std::vector<Record> before{journal->next(&machine)};
    const std::vector<Record> waiting{journal->next(&machine)};
    const auto taking = Clock::now();
    const auto piece = upkeep.next(machine, journal->last());
    paused.push_back(ms_since(taking));
    const auto begin = Clock::now();
    LOCKSTEP_TRY_STATUS(store.append(before));
    std::vector<Record> own = waiting;
    if (piece) {
      // The rows may come from both commits: those of the second are on disk before the piece, as in one batch.
      LOCKSTEP_TRY_STATUS(store.append(own));
      own = {journal->next(&machine)};
      LOCKSTEP_TRY_STATUS(store.snapshot(*piece));
    } else {
      LOCKSTEP_TRY_STATUS(store.tidy());
    }
    LOCKSTEP_TRY_STATUS(store.append(own));
    waited.push_back(ms_since(begin));
  }
  const double took = ms_since(whole);
  const auto longest = [&](std::string name, const std::vector<double>& samples) -> Row& {
    report.rows.push_back({.name = std::move(name), .unit = "ms", .value = std::ranges::max(samples)});
    Row& row = report.rows.back();
    row.p50 = percentile(samples, 0.5);
    row.p99 = percentile(samples, 0.99);
    row.runs = samples.size();
    row.target = 5;
    return row;
  };
  longest("snapshot_pause", paused);
  longest("snapshot_pause_commit", waited).floor = percentile(alone, 0.5);
  report.rows.push_back({.name = "snapshot_pause_rows", .unit = "rows", .value = double(upkeep.last().rows)});
  report.rows.push_back({.name = "snapshot_pause_whole", .unit = "ms", .value = took});
  return {};
}

}  // namespace

Result<Report> transactions(const TransactionsOptions& options) {
  Report report{"transactions", this_machine(), {}};
  const fs::path parent = options.folder.empty() ? fs::temp_directory_path() : fs::absolute(options.folder);
  std::string folder = (parent / "lockstep-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a temporary folder");
  const auto wanted = [&](std::string_view name) {
    if (!options.only.empty() && options.only != name) return false;
    std::cerr << "measuring " << name << " ...\n";
    return true;
  };
  const Peers peers{Programs(std::string(options.peers)), folder};
  Status done;
  if (wanted("commit_1")) done = commit_rows(folder, options.commits, peers, report);
  if (done && wanted("commit_64")) done = commit_64(folder, options.commits, peers, report);
  if (done && wanted("recovery_1m")) {
    done = recovery(folder, "recovery_1m", 1, options.records, report);
    if (done) done = recovery(folder, "recovery_1m_packed", batch_records, options.records, report);
  }
  if (done && wanted("snapshot_pause")) done = snapshot_pause(folder, options.rows, report);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  if (!done) return std::unexpected(done.error());
  return report;
}

}  // namespace lockstep::bench
