#include "bench/propagation.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "base/text.h"
#include "bench/idle.h"
#include "bench/peers.h"
#include "bench/shapes.h"
#include "bench/urgent.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

constexpr Placement one_core{1, 1};
constexpr Placement two_cores{1, 0};  // the orchestrator beside the disk's interrupt, the workers elsewhere
constexpr Placement anywhere{};
constexpr int idle_clients = 2000;

/// Everything a row is made from; a throw-away folder for journals and sockets.
class Bench {
 public:
  Bench(int samples, int messages, std::string folder)
      : samples_(samples),
        messages_(messages),
        folder_(std::move(folder)),
        report_{"propagation", this_machine(), {}} {}

  Result<Report> rows(std::string_view only) {
    const auto wanted = [&](std::string_view name) { return only.empty() || only == name; };
    if (wanted("volatile_one_core")) LOCKSTEP_TRY_STATUS(volatile_row("volatile_one_core", one_core));
    if (wanted("volatile_two_cores")) LOCKSTEP_TRY_STATUS(volatile_row("volatile_two_cores", two_cores));
    if (wanted("throughput_1")) LOCKSTEP_TRY_STATUS(throughput_row("throughput_1", 1));
    if (wanted("throughput_8")) LOCKSTEP_TRY_STATUS(throughput_row("throughput_8", 8));
    if (wanted("p0_behind_p3")) LOCKSTEP_TRY_STATUS(urgent_row());
    if (wanted("durable_1")) LOCKSTEP_TRY_STATUS(durable_rows());
    if (wanted("durable_64")) LOCKSTEP_TRY_STATUS(durable_64());
    if (wanted("idle_2000_cpu")) LOCKSTEP_TRY_STATUS(idle_rows());
    return report_;
  }

 private:
  static void step(std::string_view name) { std::cerr << "measuring " << name << " ...\n"; }
  Row& add(std::string name, std::string unit, const std::vector<double>& samples) {
    report_.rows.push_back({.name = std::move(name), .unit = std::move(unit)});
    Row& row = report_.rows.back();
    row.value = percentile(samples, 0.5);
    row.p50 = row.value;
    row.p99 = percentile(samples, 0.99);
    row.runs = samples.size();
    return row;
  }
  std::string fresh(std::string_view name) { return cat(folder_, "/", name, "-", ++files_); }

  /// A peer's figure, where the peer is there.
  template <class Measure>
  Status ask(Ordered<double>& peers, PeerKind kind, std::string name, int cpu, Measure measure) {
    const auto peer = Peer::start(kind, folder_, cpu);
    if (!peer) return left_out(name, peer.error());
    peers.items.emplace_back(std::move(name), LOCKSTEP_TRY(measure(**peer)));
    return {};
  }

  /// JSON is what every link speaks; the packed form stands beside it as a row of its own.
  Status volatile_row(const std::string& name, Placement placement) {
    step(name);
    Ordered<double> peers;
    const auto median = [&](Peer& peer) -> Result<double> {
      return percentile(LOCKSTEP_TRY(peer.one_way_us(placement, samples_)), 0.5);
    };
    LOCKSTEP_TRY_STATUS(ask(peers, PeerKind::redis, "redis", placement.hub, median));
    LOCKSTEP_TRY_STATUS(ask(peers, PeerKind::nats, "nats", placement.hub, median));
    for (const Form form : {Form::json, Form::packed}) {
      const auto floor = LOCKSTEP_TRY(one_way_us(Kind::floor, form, placement, samples_));
      const auto ours = LOCKSTEP_TRY(one_way_us(Kind::ours, form, placement, samples_));
      Row& row = add(form == Form::json ? name : cat(name, "_packed"), "us", ours);
      row.floor = percentile(floor, 0.5);
      row.target = 2 * *row.floor;
      if (!peers.items.empty()) row.peers = peers;
    }
    return {};
  }

  Status throughput_row(const std::string& name, int subscribers) {
    step(name);
    Ordered<double> peers;
    const auto rate = [&](Peer& peer) { return peer.deliveries_per_s(subscribers, messages_ / subscribers); };
    LOCKSTEP_TRY_STATUS(ask(peers, PeerKind::redis, "redis", -1, rate));
    LOCKSTEP_TRY_STATUS(ask(peers, PeerKind::nats, "nats", -1, rate));
    for (const Form form : {Form::packed, Form::json}) {
      const int count = form == Form::json ? messages_ / 4 / subscribers : messages_ / subscribers;
      std::vector<double> ours;
      std::vector<double> floor;
      for (int round = 0; round < 3; ++round) {
        ours.push_back(LOCKSTEP_TRY(deliveries_per_s(Kind::ours, form, subscribers, count)));
        floor.push_back(LOCKSTEP_TRY(deliveries_per_s(Kind::floor, form, subscribers, count)));
      }
      Row& row = add(form == Form::packed ? name : cat(name, "_json"), "deliveries/s", ours);
      row.better = "higher";
      row.p99.reset();
      row.floor = percentile(floor, 0.5);
      if (peers.items.empty()) continue;
      row.peers = peers;
      if (const double* redis = peers.find("redis")) row.target = 0.8 * *redis;
      if (const double* nats = peers.find("nats"); nats != nullptr && subscribers > 1) row.target = *nats;
    }
    return {};
  }

  /// The floor is the same way when nothing waits.
  Status urgent_row() {
    const int samples = std::max(50, samples_ / 40);
    for (const auto& [name, placement] :
         {std::pair("p0_behind_p3", one_core), std::pair("p0_behind_p3_two_cores", two_cores)}) {
      step(name);
      const auto floor = LOCKSTEP_TRY(urgent_us(placement, 0, samples));
      const auto ours = LOCKSTEP_TRY(urgent_us(placement, 100'000, samples));
      Row& row = add(name, "us", ours);
      row.floor = percentile(floor, 0.5);
      row.target = 2 * *row.floor;
    }
    return {};
  }

  /// In turns, so that what a disk shared with others does at one time falls on everything that is compared.
  Status durable_rows() {
    constexpr int turns = 5;
    const int samples = std::max(100, samples_ / 20) / turns;
    for (const auto& [name, placement] :
         {std::pair("durable_1", one_core), std::pair("durable_1_two_cores", two_cores)}) {
      step(name);
      Parts parts;  // F and U
      std::map<std::pair<Form, Kind>, std::vector<double>> found;
      for (int turn = 0; turn < turns; ++turn) {
        const Parts more = LOCKSTEP_TRY(parts_us(fresh("sync"), placement, samples));
        parts.sync.insert(parts.sync.end(), more.sync.begin(), more.sync.end());
        parts.trip.insert(parts.trip.end(), more.trip.begin(), more.trip.end());
        for (const Form form : {Form::packed, Form::json}) {
          for (const Kind kind : {Kind::floor, Kind::ours}) {
            const auto way =
                LOCKSTEP_TRY(one_way_us(kind, form, placement, samples, {.durable = true, .file = fresh("journal")}));
            auto& all = found[{form, kind}];
            all.insert(all.end(), way.begin(), way.end());
          }
        }
      }
      const double sync = percentile(parts.sync, 0.5);
      const double trip = percentile(parts.trip, 0.5);
      for (const Form form : {Form::packed, Form::json}) {
        Row& row = add(form == Form::packed ? name : cat(name, "_json"), "us", found.at({form, Kind::ours}));
        row.floor = percentile(found.at({form, Kind::floor}), 0.5);
        row.target = placement.workers == placement.hub ? 1.3 * sync : 1.2 * (sync + 2 * trip);
      }
    }
    return {};
  }

  Status durable_64() {
    step("durable_64");
    const int count = std::max(6400, messages_ / 20);
    Ordered<double> peers;
    LOCKSTEP_TRY_STATUS(ask(peers, PeerKind::redis_synced, "redis_stream_synced", -1,
                            [&](Peer& each) { return each.synced_per_s(count); }));
    for (const Form form : {Form::packed, Form::json}) {
      std::vector<double> ours;
      std::vector<double> floor;
      for (int round = 0; round < 3; ++round) {
        ours.push_back(LOCKSTEP_TRY(
            deliveries_per_s(Kind::ours, form, 1, count, 64, {.durable = true, .file = fresh("journal")})));
        floor.push_back(
            LOCKSTEP_TRY(deliveries_per_s(Kind::floor, form, 1, count, 64, {.durable = true, .file = fresh("bare")})));
      }
      Row& row = add(form == Form::packed ? "durable_64" : "durable_64_json", "events/s", ours);
      row.better = "higher";
      row.p99.reset();
      row.floor = percentile(floor, 0.5);
      row.target = 0.5 * *row.floor;
      if (!peers.items.empty()) row.peers = peers;
    }
    return {};
  }

  Status idle_rows() {
    step("idle streams");
    fs::create_directories(cat(folder_, "/server"));
    const auto cost = LOCKSTEP_TRY(idle_streams(cat(folder_, "/server"), idle_clients));
    report_.rows.push_back(
        {.name = "idle_subscriber_bytes", .unit = "bytes", .value = cost.bytes_each, .target = 64 * 1024});
    report_.rows.push_back({.name = "idle_2000_cpu",
                            .unit = "% of one core",
                            .value = cost.cpu_percent,
                            .floor = cost.cpu_without,
                            .target = 5});
    return {};
  }

  int samples_;
  int messages_;
  int files_ = 0;
  std::string folder_;
  Report report_;
};

}  // namespace

Result<Report> propagation(int samples, int messages, std::string_view only) {
  std::string folder = (fs::temp_directory_path() / "lockstep-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a temporary folder");
  auto report = Bench(samples, messages, folder).rows(only);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  return report;
}

}  // namespace lockstep::bench
