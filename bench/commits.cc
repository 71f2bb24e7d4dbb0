#include "bench/commits.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "base/text.h"
#include "bench/journal.h"
#include "bench/wire.h"
#include "domains/model/rules.h"
#include "journal/sqlite_store.h"
#include "operations/model_load.h"
#include "ownership/table.h"
#include "propagation/framing.h"
#include "transactions/participant.h"

namespace lockstep::bench {

namespace {

const WorkerId worker_name("worker_0");
constexpr Incarnation incarnation{7};
constexpr Epoch epoch{3};
constexpr Bytes model_bytes{1u << 30};

std::string device_name(int slot) { return cat("gpu_", slot); }
std::string model_name(int slot) { return cat("model_", slot); }

struct Shared {
  std::atomic<bool> failed{false};
  std::atomic<std::uint64_t> nanos{0};
};

/// One side's frames out, many in one write.
class Sender {
 public:
  Sender(Side side, char letter, Form form) : side_(side), letter_(letter), form_(form) {}

  template <class Body>
  void add(FrameType type, const TransactionId& transaction, const Body& body) {
    Envelope envelope;
    envelope.id = cat(letter_, "7.", ++sequence_);
    envelope.source = {side_, worker_name, incarnation};
    envelope.epoch = epoch;
    envelope.sequence = sequence_;
    envelope.time = Timestamp::of(WallTime{1'764'180'000'000});
    envelope.urgency = Urgency::p1_high;
    envelope.op_id = transaction.str();
    envelope.correlation.transaction = transaction;
    const Frame frame = to_frame(type, std::move(envelope), body, 0, form_);
    append_frame(out_, frame.header, frame.body);
  }
  bool flush(int socket) {
    const bool good = write_all(socket, out_);
    out_.clear();
    return good;
  }

 private:
  Side side_;
  char letter_;
  Form form_;
  std::uint64_t sequence_ = 0;
  std::string out_;
};

/// The next frame of what was read, checked as a link checks it; nothing when more must be read, or it is wrong.
class Receiver {
 public:
  Receiver(int socket, Side from) : reader_(socket), from_(from) {}
  bool fill() { return reader_.fill(); }
  std::optional<Envelope> next() {
    const auto view = reader_.next();
    if (!view) return std::nullopt;
    if (view->header.sequence != ++sequence_ || view->header.incarnation != incarnation ||
        view->header.epoch != epoch || !ownership::may_send(from_, static_cast<FrameType>(view->header.type))) {
      broken_ = true;
      return std::nullopt;
    }
    auto envelope = from_frame(Frame{view->header, std::string(view->body)});
    broken_ = !envelope || envelope->source.side != from_;
    if (broken_) return std::nullopt;
    type_ = static_cast<FrameType>(view->header.type);
    return *std::move(envelope);
  }
  FrameType type() const { return type_; }
  bool broken() const { return broken_; }

 private:
  FrameReader reader_;
  Side from_;
  FrameType type_{};
  std::uint64_t sequence_ = 0;
  bool broken_ = false;
};

/// The coordinator and its two services: their votes are taken from the tables, their part is in the commit record.
class Services {
 public:
  static Result<std::unique_ptr<Services>> open(const std::string& file, int slots) {
    std::unique_ptr<Services> out(new Services);
    out->store_ = LOCKSTEP_TRY(SqliteStore::open(file));
    LOCKSTEP_TRY(out->store_->recover());
    Change change;
    WorkerRecord worker;
    worker.worker_id = worker_name;
    worker.incarnation = incarnation;
    worker.state = WorkerState::ready;
    for (int slot = 0; slot < slots; ++slot) {
      const DeviceId device(device_name(slot));
      change.put(
          out->tables_.device.devices, device.str(),
          device::Device{device, worker_name, device::Kind::cuda, Bytes{8ULL << 30}, device::Availability::online, ""});
      model::Model model;
      model.model_id = ModelId(model_name(slot));
      model.kind = model::Kind::sdxl;
      model.path = "/models/m";
      model.availability = model::Availability::available;
      model.bytes = model_bytes;
      for (const char* part : {"unet", "vae", "text_encoder"}) {
        model.components.emplace_back();
        model.components.back().name = part;
        model.components.back().segment_bytes = Bytes{model_bytes.value / 3};
        model.components.back().sha256 = std::string(64, 'a');
      }
      change.put(out->tables_.model.models, model.model_id.str(), model);
    }
    out->worker_ = worker;
    LOCKSTEP_TRY_STATUS(out->take(std::move(change)));
    LOCKSTEP_TRY_STATUS(out->sync());
    return out;
  }

  /// What the participant is asked to promise; its own services have voted.
  Result<TransactionPrepare> prepare(int slot) {
    const TransactionId id = transaction_id(epoch, ++made_);
    worker_.device_id = DeviceId(device_name(slot));
    const ModelId model(model_name(slot));
    LoadIntent intent = LOCKSTEP_TRY(prepare_load(tables_, worker_, model, JobId("req_000003_000001/00"), id,
                                                  votes_on_load(tables_, intents_, worker_, model)));
    TransactionPrepare out{id, intent.plan};
    intents_.emplace(id, std::move(intent));
    return out;
  }
  /// All of the transaction in one record, which the next sync makes durable.
  Status decide(const TransactionVote& vote) {
    const auto intent = intents_.find(vote.transaction_id);
    if (intent == intents_.end() || vote.prepare_result != Vote::vote_commit) {
      return fail(ErrorCode::internal, "a vote that was not expected");
    }
    Change change;
    decide_load(tables_, intent->second, change);
    held_.emplace(vote.transaction_id, intent->second.plan.model_id);
    intents_.erase(intent);
    return take(std::move(change));
  }
  /// The decision is confirmed, and what it gave is given back: the next one finds the devices free.
  Status end(const TransactionId& id) {
    const auto held = held_.find(id);
    if (held == held_.end()) return fail(ErrorCode::internal, "an acknowledgement that was not expected");
    Change change;
    const model::Residency* residency = model::residency(tables_.model, held->second, worker_name);
    if (residency == nullptr) return fail(ErrorCode::internal, "a decision without its rows");
    undo_load(tables_, *residency, TransactionEvent::acknowledged, "measured", change);
    held_.erase(held);
    return take(std::move(change));
  }
  Status sync() {
    if (pending_.empty()) return {};
    const Status written = store_->append(pending_);
    pending_.clear();
    return written;
  }

 private:
  Services() = default;
  Status take(Change change) {
    Commit commit = change.take(WallTime{1'764'180'000'000});
    commit.rev = Rev{++rev_};
    LOCKSTEP_TRY_STATUS(apply_changes(tables_, commit));
    pending_.push_back({Lsn{rev_}, encode(commit)});
    return {};
  }

  std::unique_ptr<Store> store_;
  Tables tables_;
  LoadIntents intents_;
  std::map<TransactionId, ModelId> held_;
  WorkerRecord worker_;
  std::vector<Record> pending_;
  std::uint64_t rev_ = 0;
  std::uint64_t made_ = 0;
};

/// All processes of one measurement.
struct Run {
  Commits what;
  Placement placement;
  int window;
  int count;
  std::string file;
  Pair link = socket_pair();  // coordinator a, worker b
  Shared* shared = new (shared_memory(sizeof(Shared))) Shared;
  std::uint64_t* took = bench::shared<std::uint64_t>(static_cast<std::size_t>(count));

  Run(Commits measured, Placement p, int in_flight, int transactions, std::string journal)
      : what(measured), placement(p), window(in_flight), count(transactions), file(std::move(journal)) {}
  ~Run() {
    ::close(link.a);
    ::close(link.b);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  [[noreturn]] void give_up() const {
    shared->failed = true;
    ::_exit(1);
  }
  void run_worker();
  void run_coordinator();
  void run_floor_worker();
  void run_floor_coordinator();
  Status go();
};

void Run::run_worker() {
  Receiver in(link.b, Side::orchestrator);
  Sender out(Side::worker, 'w', what.form);
  Participant participant(Bytes{std::uint64_t{1} << 50});
  for (int acked = 0; acked < count;) {
    if (!in.fill()) give_up();
    while (const auto envelope = in.next()) {
      if (in.type() == FrameType::transaction_prepare) {
        const auto prepare = read_message<TransactionPrepare>(*envelope);
        if (!prepare) give_up();
        out.add(FrameType::transaction_vote, prepare->transaction_id, participant.prepare(*prepare));
        continue;
      }
      const auto decision = read_message<TransactionDecision>(*envelope);
      if (!decision || !participant.commit(decision->transaction_id)) give_up();
      out.add(FrameType::transaction_ack, decision->transaction_id, TransactionAck{decision->transaction_id});
      const auto holdings = participant.holdings();
      for (const auto& [model, plan] : holdings) participant.release(model);
      ++acked;
    }
    if (in.broken() || !out.flush(link.b)) give_up();
  }
}

void Run::run_coordinator() {
  auto services = Services::open(file, window);
  if (!services) give_up();
  Receiver in(link.a, Side::worker);
  Sender out(Side::orchestrator, 'o', what.form);
  std::map<TransactionId, std::pair<int, int>> places;  // slot and number
  std::vector<std::uint64_t> begun(static_cast<std::size_t>(count));
  int started = 0;
  const auto start = [&](int slot) {
    begun[static_cast<std::size_t>(started)] = now_ns();
    const auto prepare = (*services)->prepare(slot);
    if (!prepare) give_up();
    places.emplace(prepare->transaction_id, std::pair(slot, started));
    out.add(FrameType::transaction_prepare, prepare->transaction_id, *prepare);
    ++started;
  };
  const std::uint64_t begin = now_ns();
  for (int slot = 0; slot < std::min(window, count); ++slot) start(slot);
  if (!out.flush(link.a)) give_up();
  std::vector<TransactionId> decided;
  for (int ended = 0; ended < count;) {
    if (!in.fill()) give_up();
    std::vector<int> free;
    while (const auto envelope = in.next()) {
      if (in.type() == FrameType::transaction_vote) {
        const auto vote = read_message<TransactionVote>(*envelope);
        if (!vote || !(*services)->decide(*vote)) give_up();
        decided.push_back(vote->transaction_id);
        continue;
      }
      const auto ack = read_message<TransactionAck>(*envelope);
      if (!ack || !(*services)->end(ack->transaction_id)) give_up();
      free.push_back(places.at(ack->transaction_id).first);
      places.erase(ack->transaction_id);
      ++ended;
    }
    if (in.broken() || !(*services)->sync()) give_up();  // nothing leaves before it is on disk
    for (const TransactionId& id : decided) out.add(FrameType::transaction_commit, id, TransactionDecision{id});
    for (const int slot : free) {
      if (started < count) start(slot);
    }
    if (!out.flush(link.a)) give_up();
    for (const TransactionId& id : decided) {
      const auto number = static_cast<std::size_t>(places.at(id).second);
      took[number] = now_ns() - begun[number];
    }
    decided.clear();
  }
  shared->nanos = now_ns() - begin;
}

// The floor: prepare and commit, vote and acknowledgement as bytes of about the same sizes; 1 in the first byte is a
// prepare or a vote, 2 a commit or an acknowledgement; then the number of the slot.
struct Sizes {
  std::size_t prepare;
  std::size_t others;
};
constexpr Sizes sizes_of(Form form) { return form == Form::json ? Sizes{900, 400} : Sizes{440, 140}; }
constexpr std::size_t record_size = 1400;

std::string message(char kind, int slot, std::size_t size) {
  std::string out(size, 'x');
  out[0] = kind;
  out[1] = static_cast<char>(slot);
  return out;
}

void Run::run_floor_worker() {
  const auto [prepare_size, short_size] = sizes_of(what.form);
  std::string buffer;
  char piece[1 << 16];
  for (int acked = 0; acked < count;) {
    const ssize_t got = ::recv(link.b, piece, sizeof piece, 0);
    if (got <= 0) give_up();
    buffer.append(piece, static_cast<std::size_t>(got));
    std::string out;
    std::size_t at = 0;
    while (at < buffer.size()) {
      const std::size_t size = buffer[at] == 1 ? prepare_size : short_size;
      if (buffer.size() - at < size) break;
      out += message(buffer[at], buffer[at + 1], short_size);
      if (buffer[at] == 2) ++acked;
      at += size;
    }
    buffer.erase(0, at);
    if (!write_all(link.b, out)) give_up();
  }
}

void Run::run_floor_coordinator() {
  const auto [prepare_size, short_size] = sizes_of(what.form);
  BareJournal journal(file);
  std::vector<std::uint64_t> begun(static_cast<std::size_t>(window));
  int started = 0;
  int decided = 0;
  const std::uint64_t begin = now_ns();
  std::string out;
  for (; started < std::min(window, count); ++started) {
    begun[static_cast<std::size_t>(started)] = now_ns();
    out += message(1, started, prepare_size);
  }
  if (!write_all(link.a, out)) give_up();
  std::string buffer;
  char piece[1 << 16];
  for (int ended = 0; ended < count;) {
    const ssize_t got = ::recv(link.a, piece, sizeof piece, 0);
    if (got <= 0) give_up();
    buffer.append(piece, static_cast<std::size_t>(got));
    out.clear();
    std::string records;
    std::vector<std::size_t> now_decided;
    for (; buffer.size() >= short_size; buffer.erase(0, short_size)) {
      const int slot = static_cast<unsigned char>(buffer[1]);
      if (buffer[0] == 1) {
        records.append(record_size, 'r');
        out += message(2, slot, short_size);
        now_decided.push_back(static_cast<std::size_t>(slot));
        continue;
      }
      ++ended;  // the end of a transaction is written with the next decision, and never waited for
      if (started >= count) continue;
      ++started;
      begun[static_cast<std::size_t>(slot)] = now_ns();
      out += message(1, slot, prepare_size);
    }
    if (!records.empty() && !journal.append(records)) give_up();
    if (!write_all(link.a, out)) give_up();
    for (const std::size_t slot : now_decided) took[decided++] = now_ns() - begun[slot];
  }
  shared->nanos = now_ns() - begin;
}

Status Run::go() {
  const pid_t worker =
      in_process(placement.workers, [&] { what.kind == Kind::ours ? run_worker() : run_floor_worker(); });
  const pid_t coordinator =
      in_process(placement.hub, [&] { what.kind == Kind::ours ? run_coordinator() : run_floor_coordinator(); });
  if (!wait_for_all({worker, coordinator}) || shared->failed) {
    return fail(ErrorCode::internal, "a process of the measurement failed");
  }
  return {};
}

std::vector<double> in_us(const std::uint64_t* nanos, int from, int to) {
  std::vector<double> out;
  for (int i = from; i < to; ++i) out.push_back(static_cast<double>(nanos[i]) / 1e3);
  return out;
}

}  // namespace

Result<std::vector<double>> commit_us(Commits what, Placement placement, int samples, const std::string& file) {
  const int warm = std::max(10, samples / 10);
  Run run(what, placement, 1, samples + warm, file);
  LOCKSTEP_TRY_STATUS(run.go());
  return in_us(run.took, warm, samples + warm);
}

Result<double> commits_per_s(Commits what, int window, int count, const std::string& file,
                             std::vector<double>& one_us) {
  Run run(what, {}, window, count, file);
  LOCKSTEP_TRY_STATUS(run.go());
  one_us = in_us(run.took, count / 10, count);
  return static_cast<double>(count) * 1e9 / static_cast<double>(run.shared->nanos);
}

}  // namespace lockstep::bench
