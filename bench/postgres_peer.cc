#include "bench/postgres_peer.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/text.h"
#include "env/real/blob_store.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

constexpr int clients_max = 64;
constexpr std::size_t log_max = std::size_t{1} << 30;
constexpr std::string_view tables[] = {"device", "memory", "model"};

/// The server refuses to run as root.
std::string server_user() { return ::geteuid() == 0 ? "postgres" : ""; }

/// That user gets a folder below ours, and may pass through ours.
Status give(const std::string& folder, const std::string& parent, const std::string& user) {
  const passwd* const entry = ::getpwnam(user.c_str());
  if (entry == nullptr) return fail(ErrorCode::not_found, cat("there is no user ", user, ", and we are root"));
  if (::chmod(parent.c_str(), 0711) != 0 || ::chown(folder.c_str(), entry->pw_uid, entry->pw_gid) != 0) {
    return fail(ErrorCode::not_found, cat(folder, " cannot be given to the user ", user));
  }
  return {};
}

class Postgres : public CommitPeer {
 public:
  Postgres(std::string programs, std::string folder, Placement placement)
      : programs_(std::move(programs)), folder_(std::move(folder)), placement_(placement) {}
  ~Postgres() override {
    server_.stop();
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  Status start() {
    const std::string user = server_user();
    const std::string data = folder_ + "/data";
    const std::string log = folder_ + "/log";
    LOCKSTEP_TRY(output_of({programs_ + "/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                            "--locale=C", "--no-instructions"},
                           {.user = user, .log = log}));
    // What is durable is said here, although it is the default: no configuration of the system changes it.
    server_ =
        Running({programs_ + "/postgres", "-D", data, "-k", folder_, "-c", "listen_addresses=", "-c",
                 "unix_socket_permissions=0700", "-c", "max_prepared_transactions=200", "-c", "fsync=on", "-c",
                 "synchronous_commit=on", "-c", "full_page_writes=on"},
                {.cpu = placement_.hub, .user = user, .log = log}, SIGINT);  // SIGINT: without waiting for clients
    LOCKSTEP_TRY_STATUS(
        wait_until([&] { return output_of({programs_ + "/pg_isready", "-q", "-h", folder_}, {}).has_value(); }, server_,
                   "PostgreSQL", log));
    std::ofstream(folder_ + "/transaction.sql") << postgres_script();
    LOCKSTEP_TRY(output_of({programs_ + "/psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", folder_, "-U", "postgres", "-c",
                            postgres_schema(clients_max)},
                           {.log = log}));
    return {};
  }

  Result<CommitFigures> run(int in_flight, int count) override {
    const int each = (count + in_flight - 1) / in_flight;
    const int threads = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, in_flight);
    const std::string name = cat("took-", ++runs_);
    const std::string report = LOCKSTEP_TRY(output_of({programs_ + "/pgbench",
                                                       "-n",
                                                       "-M",
                                                       "simple",
                                                       "-f",
                                                       folder_ + "/transaction.sql",
                                                       "-c",
                                                       cat(in_flight),
                                                       "-j",
                                                       cat(threads),
                                                       "-t",
                                                       cat(each),
                                                       "-D",
                                                       "n=0",
                                                       "-D",
                                                       cat("run=", runs_),
                                                       "-l",
                                                       cat("--log-prefix=", folder_, "/", name),
                                                       "-h",
                                                       folder_,
                                                       "-U",
                                                       "postgres",
                                                       "postgres"},
                                                      {.cpu = placement_.workers, .log = folder_ + "/log"}));
    CommitFigures out;
    out.per_s = LOCKSTEP_TRY(rate_of(report, each * in_flight));
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (!entry.path().filename().string().starts_with(name + ".")) continue;
      const std::string log = LOCKSTEP_TRY(real::read_file(entry.path().string(), log_max));
      const auto more = LOCKSTEP_TRY(latencies_of(log));
      out.us.insert(out.us.end(), more.begin(), more.end());
    }
    if (out.us.size() != static_cast<std::size_t>(each) * static_cast<std::size_t>(in_flight)) {
      return fail(ErrorCode::internal, cat("pgbench logged ", out.us.size(), " of ", each * in_flight));
    }
    return out;
  }

 private:
  std::string programs_;
  std::string folder_;
  Placement placement_;
  Running server_;
  int runs_ = 0;
};

}  // namespace

std::string postgres_script() {
  const std::string value(peer_value_size, 'x');
  std::string out = "\\set n :n + 1\nBEGIN \\;\n";
  for (const std::string_view table : tables) {
    out += cat("UPDATE ", table, " SET version = version + 1, value = '", value, "' WHERE id = :client_id \\;\n");
  }
  out += "PREPARE TRANSACTION 'p-:run-:client_id-:n';\nCOMMIT PREPARED 'p-:run-:client_id-:n';\n";
  return out;
}

std::string postgres_schema(int clients) {
  std::string out;
  for (const std::string_view table : tables) {
    // Room in each page, so that a new version of a row needs no new entry in the index.
    out += cat("CREATE TABLE ", table, " (id int PRIMARY KEY, version bigint, value text) WITH (fillfactor = 50); ",
               "INSERT INTO ", table, " SELECT i, 0, '' FROM generate_series(0, ", clients - 1, ") i; ");
  }
  return out;
}

Result<std::vector<double>> latencies_of(std::string_view log) {
  std::vector<double> out;
  while (!log.empty()) {
    const std::size_t end = std::min(log.find('\n'), log.size());
    const std::string_view line = log.substr(0, end);
    log.remove_prefix(std::min(end + 1, log.size()));
    std::size_t at = 0;
    for (int field = 0; field < 2 && at != std::string_view::npos; ++field) at = line.find(' ', at + (field > 0));
    std::uint64_t took = 0;
    const std::string_view number = at == std::string_view::npos ? "" : line.substr(at + 1);
    if (std::from_chars(number.data(), number.data() + number.size(), took).ec != std::errc{}) {
      return fail(ErrorCode::internal, cat("not a line of pgbench's log: ", shortened(line)));
    }
    out.push_back(static_cast<double>(took));
  }
  return out;
}

Result<double> rate_of(std::string_view report, int count) {
  const std::string done = cat("transactions actually processed: ", count, "/", count, "\n");
  const std::size_t at = report.find("tps = ");
  double rate = 0;
  if (at != std::string_view::npos) std::from_chars(report.data() + at + 6, report.data() + report.size(), rate);
  if (report.find(done) == std::string_view::npos || rate <= 0) {
    return fail(ErrorCode::internal, cat("pgbench did not do all ", count, ": ", shortened(report, 600)));
  }
  return rate;
}

Result<std::unique_ptr<CommitPeer>> start_postgres(const Programs& programs, const std::string& parent,
                                                   Placement placement) {
  const std::string initdb = programs.find("initdb");
  if (initdb.empty()) return fail(ErrorCode::not_found, "initdb is not installed");
  const std::string bin = fs::path(initdb).parent_path().string();
  for (const char* each : {"postgres", "pg_isready", "psql", "pgbench"}) {
    if (::access(cat(bin, "/", each).c_str(), X_OK) != 0) {
      return fail(ErrorCode::not_found, cat(each, " is not installed beside ", initdb));
    }
  }
  std::string folder = parent + "/postgresql-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a folder for PostgreSQL");
  auto out = std::make_unique<Postgres>(bin, folder, placement);
  if (const std::string user = server_user(); !user.empty()) LOCKSTEP_TRY_STATUS(give(folder, parent, user));
  LOCKSTEP_TRY_STATUS(out->start());
  return out;
}

}  // namespace lockstep::bench
