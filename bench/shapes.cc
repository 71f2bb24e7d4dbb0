#include "bench/shapes.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "bench/journal.h"
#include "bench/wire.h"

namespace lockstep::bench {

namespace {

constexpr Incarnation teller{7};
constexpr std::size_t write_at = 32u << 10;  // bytes that are gathered before they are written

struct Shared {
  std::atomic<bool> failed{false};
  std::atomic<std::uint64_t> begin{0};
  std::uint64_t end[8] = {};
};

/// All processes of one measurement. Every one of them ends by itself after `messages`.
struct Run {
  Kind kind;
  Form form;
  Placement placement;
  int messages;
  int window = 0;
  Durability durability;
  std::size_t size = 0;  // of a frame

  Pair tell;                  // teller a, hub b
  std::vector<Pair> deliver;  // hub a, subscriber b
  Pair ack;                   // subscriber a, teller b: one byte for each that was read
  Shared* shared = nullptr;
  std::uint64_t* sent = nullptr;  // for each message, one-way runs
  std::uint64_t* got = nullptr;

  Run(Kind k, Form f, Placement p, int count, int subscribers, Durability d)
      : kind(k), form(f), placement(p), messages(count), durability(std::move(d)), size(frame_bytes(f)) {
    tell = socket_pair();
    for (int i = 0; i < subscribers; ++i) deliver.push_back(socket_pair());
    ack = socket_pair();
    shared = new (shared_memory(sizeof(Shared))) Shared;
    sent = bench::shared<std::uint64_t>(static_cast<std::size_t>(count));
    got = bench::shared<std::uint64_t>(static_cast<std::size_t>(count));
  }
  ~Run() {
    for (const int each : {tell.a, tell.b, ack.a, ack.b}) ::close(each);
    for (const Pair& each : deliver) {
      ::close(each.a);
      ::close(each.b);
    }
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  void give_up() {
    shared->failed = true;
    ::_exit(1);
  }
  bool durable() const { return durability.durable; }
  Result<void> go(bool one_way);
  void run_teller(bool one_way);
  void run_hub();
  void run_floor_hub();
  void run_subscriber(std::size_t which, bool one_way);
};

void Run::run_teller(bool one_way) {
  Teller made(form, teller);
  std::string out;
  std::string prepared;
  made.append(prepared);
  int acked = 0;
  char acks[4096];
  shared->begin = now_ns();
  for (int i = 0; i < messages;) {
    out.clear();
    if (one_way) sent[i] = now_ns();
    do {
      if (kind == Kind::ours) {
        // The sequence must start at 1, and `prepared` took it.
        if (i == 0) {
          out += prepared;
        } else {
          made.append(out);
        }
      } else {
        out += prepared;
      }
      ++i;
    } while (!one_way && i < messages && out.size() < write_at && (window == 0 || i - acked < window));
    if (!write_all(tell.a, out)) give_up();
    while (one_way ? acked < i : (window != 0 && (i - acked >= window || (i == messages && acked < i)))) {
      const ssize_t more = ::recv(ack.b, acks, sizeof acks, 0);
      if (more <= 0) give_up();
      acked += static_cast<int>(more);
    }
  }
}

void Run::run_hub() {
  FrameReader reader(tell.b);
  Relay relay(form, teller, deliver.size());
  std::vector<std::string> out(deliver.size());
  std::unique_ptr<ProductJournal> journal;
  if (durable()) {
    auto opened = ProductJournal::open(durability.file);
    if (!opened) give_up();
    journal = *std::move(opened);
  }
  const auto flush = [&] {
    if (journal && !journal->sync()) give_up();  // nothing leaves before it is on disk
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (!write_all(deliver[i].a, out[i])) give_up();
      out[i].clear();
    }
  };
  for (int passed = 0; passed < messages;) {
    if (!reader.fill()) give_up();
    while (const auto frame = reader.next()) {
      if (!relay.pass_on(*frame, out)) give_up();
      if (journal) journal->add(relay.listener().envelope(), relay.listener().event());
      ++passed;
      if (!journal && out[0].size() >= write_at) flush();
    }
    flush();
  }
}

void Run::run_floor_hub() {
  std::string buffer(std::size_t{1} << 18, '\0');
  std::unique_ptr<BareJournal> journal;
  if (durable()) journal = std::make_unique<BareJournal>(durability.file);
  const std::size_t all = static_cast<std::size_t>(messages) * size;
  for (std::size_t passed = 0; passed < all;) {
    const ssize_t got_now = ::recv(tell.b, buffer.data(), buffer.size(), 0);
    if (got_now <= 0) give_up();
    const std::string_view bytes(buffer.data(), static_cast<std::size_t>(got_now));
    if (journal && !journal->append(bytes)) give_up();
    for (const Pair& each : deliver) {
      if (!write_all(each.a, bytes)) give_up();
    }
    passed += bytes.size();
  }
}

void Run::run_subscriber(std::size_t which, bool one_way) {
  FrameReader reader(deliver[which].b);
  Listener listener(form, Side::orchestrator, teller);
  std::string buffer(std::size_t{1} << 18, '\0');
  const bool acks = one_way || window != 0;
  const std::string ack_bytes(4096, 'a');
  std::size_t bytes = 0;
  for (int read = 0; read < messages;) {
    const int before = read;
    if (kind == Kind::ours) {
      if (!reader.fill()) give_up();
      while (const auto frame = reader.next()) {
        if (!listener.take(*frame)) give_up();
        if (one_way) got[read] = now_ns();
        ++read;
      }
    } else {
      const ssize_t got_now = ::recv(deliver[which].b, buffer.data(), buffer.size(), 0);
      if (got_now <= 0) give_up();
      bytes += static_cast<std::size_t>(got_now);
      read = static_cast<int>(bytes / size);
      if (one_way && read > before) got[before] = now_ns();
    }
    if (acks && which == 0 && read > before &&
        !write_all(ack.a, std::string_view(ack_bytes).substr(0, static_cast<std::size_t>(read - before)))) {
      give_up();
    }
  }
  shared->end[which] = now_ns();
}

Result<void> Run::go(bool one_way) {
  std::vector<pid_t> processes;
  processes.push_back(in_process(placement.hub, [&] { kind == Kind::ours ? run_hub() : run_floor_hub(); }));
  for (std::size_t i = 0; i < deliver.size(); ++i) {
    processes.push_back(in_process(placement.workers, [&, i] { run_subscriber(i, one_way); }));
  }
  processes.push_back(in_process(placement.workers, [&] { run_teller(one_way); }));
  if (!wait_for_all(processes) || shared->failed)
    return fail(ErrorCode::internal, "a process of the measurement failed");
  return {};
}

}  // namespace

std::size_t frame_bytes(Form form) {
  std::string out;
  Teller(form, teller).append(out);
  return out.size();
}

Result<std::vector<double>> one_way_us(Kind kind, Form form, Placement placement, int samples,
                                       const Durability& durability) {
  const int warm = std::max(10, samples / 10);
  Run run(kind, form, placement, samples + warm, 1, durability);
  LOCKSTEP_TRY_STATUS(run.go(true));
  std::vector<double> out;
  for (int i = warm; i < samples + warm; ++i) out.push_back(static_cast<double>(run.got[i] - run.sent[i]) / 1e3);
  return out;
}

Result<double> deliveries_per_s(Kind kind, Form form, int subscribers, int messages, int window,
                                const Durability& durability) {
  Run run(kind, form, {}, messages, subscribers, durability);
  run.window = window;
  LOCKSTEP_TRY_STATUS(run.go(false));
  const std::uint64_t end = *std::max_element(run.shared->end, run.shared->end + subscribers);
  return static_cast<double>(messages) * subscribers * 1e9 / static_cast<double>(end - run.shared->begin);
}

Result<Parts> parts_us(const std::string& file, Placement placement, int samples) {
  const Pair pair = socket_pair();
  double* const trips = shared<double>(static_cast<std::size_t>(samples));
  double* const syncs = shared<double>(static_cast<std::size_t>(samples));
  const int warm = 100;
  const pid_t echo = in_process(placement.workers, [&] {
    char bytes[300];
    for (int i = 0; i < samples + warm; ++i) {
      if (!read_all(pair.b, bytes, sizeof bytes) || !write_all(pair.b, {bytes, sizeof bytes})) ::_exit(1);
    }
  });
  const pid_t hub = in_process(placement.hub, [&] {
    char bytes[300] = {};
    BareJournal journal(file);
    for (int i = -warm; i < samples; ++i) {
      const std::uint64_t begin = now_ns();
      if (!write_all(pair.a, {bytes, sizeof bytes}) || !read_all(pair.a, bytes, sizeof bytes)) ::_exit(1);
      const std::uint64_t back = now_ns();
      if (!journal.append({bytes, sizeof bytes})) ::_exit(1);
      if (i < 0) continue;
      trips[i] = static_cast<double>(back - begin) / 1e3;
      syncs[i] = static_cast<double>(now_ns() - back) / 1e3;
    }
  });
  const bool good = wait_for_all({echo, hub});
  ::close(pair.a);
  ::close(pair.b);
  if (!good) return fail(ErrorCode::unavailable, cat("cannot measure a sync of ", file));
  return Parts{{trips, trips + samples}, {syncs, syncs + samples}};
}

}  // namespace lockstep::bench
