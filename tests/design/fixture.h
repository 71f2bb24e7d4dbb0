#pragma once

// The real orchestrator, driven by hand: inputs in, effects and journal records out. A test says what the workers, the
// disk and the clock do. With `manual` set nothing becomes durable before sync().

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "base/digest.h"
#include "events/json_read.h"
#include "events/link_messages.h"
#include "events/model_events.h"
#include "orchestrator/machine.h"
#include "propagation/framing.h"
#include "runtime/loop.h"

namespace lockstep::design {

inline const ModelId tiny("tiny");

inline Settings settings_of(int workers) {
  Settings settings;
  settings.version = "test";
  for (int i = 0; i < workers; ++i) {
    settings.workers.push_back({WorkerId(cat("w", i)), DeviceId(cat("gpu_", i)), device::Kind::cuda, 1_GiB});
  }
  return settings;
}

/// A frame that left, opened.
struct Sent {
  out::SendFrame effect;
  FrameType type;
  Envelope envelope;

  template <class Body>
  Body body() const {
    const auto read = read_message<Body>(envelope);
    EXPECT_TRUE(read.has_value()) << envelope.body.text;
    return read.value_or(Body{});
  }
};

/// One change of state on its way to a worker.
struct Told {
  WorkerId worker_id;
  Urgency lane;
  std::string op_id;
  bool snapshot;
  StateEvent event;

  template <class Body>
  Body body() const {
    const auto read = json::from_text<Body>(event.body.text);
    EXPECT_TRUE(read.has_value()) << event.body.text;
    return read.value_or(Body{});
  }
};

class Stage {
 public:
  explicit Stage(Settings settings, const std::vector<Record>& earlier = {})
      : machine(std::move(settings)), journal(earlier), loop_(machine, recovered(machine, earlier)) {}

  Orchestrator machine;
  bool manual = false;
  std::optional<std::string> schema_digest;  // of the workers' hello
  bool applies = true;  // workers apply what they are told at once; otherwise a test says applied()
  Nanos now = seconds(1000);
  std::int64_t wall_offset_ms = 0;  // of the wall clock against the monotonic one
  std::vector<Record> journal;      // what is durable
  std::vector<Effect> released;     // effects that left, in order

  WallTime wall() const { return WallTime{now / 1'000'000 + wall_offset_ms}; }
  template <class What>
  void input(What what, std::optional<IdempotencyKey> key = {}) {
    loop_.input(Input{now, wall(), std::move(what), std::move(key)});
    if (!manual) sync();
  }
  /// Everything pending becomes durable, and what waited for it leaves.
  void sync() {
    for (Record& record : loop_.take_batch()) unsynced_.push_back(std::move(record));
    std::ranges::move(unsynced_, std::back_inserter(journal));
    unsynced_.clear();
    loop_.durable(loop_.applied());
    release();
  }
  /// As a client that calls its request `key`; the reply's number is that of the command.
  template <class What>
  void input_with_key(What what, const std::string& key, const std::string& fingerprint = "same") {
    const ReplyId reply = what.reply;
    input(std::move(what), IdempotencyKey{key, fingerprint, reply});
  }
  void release() {
    while (auto effect = loop_.next_effect()) released.push_back(*std::move(effect));
    while (applies && seen_ < released.size()) {
      const auto* frame = std::get_if<out::SendFrame>(&released[seen_++].what);
      if (frame == nullptr || frame->frame.header.type != static_cast<std::uint16_t>(FrameType::state_changes))
        continue;
      const Envelope envelope = from_frame(frame->frame).value();
      const auto changes = json::from_text<StateChanges>(envelope.body.text);
      StateApplied answer{changes->rev, {}};
      for (const StateEvent& each : changes->events) {
        answer.results.push_back({each.type, each.subject, each.rev, AppliedOutcome::applied, "", std::nullopt});
      }
      say(frame->worker_id.str(), FrameType::state_applied, answer, 0, envelope.op_id);
    }
  }

  template <class What>
  std::vector<What> all() const {
    std::vector<What> out;
    for (const Effect& each : released) {
      if (const auto* what = std::get_if<What>(&each.what)) out.push_back(*what);
    }
    return out;
  }
  /// Position of the first effect of this kind; released.size() when there is none.
  template <class What>
  std::size_t index_of() const {
    const auto is = [](const Effect& each) { return std::holds_alternative<What>(each.what); };
    return static_cast<std::size_t>(std::ranges::find_if(released, is) - released.begin());
  }
  std::vector<Sent> sent(FrameType type) const {
    std::vector<Sent> out;
    for (const out::SendFrame& each : all<out::SendFrame>()) {
      if (each.frame.header.type != static_cast<std::uint16_t>(type)) continue;
      const auto envelope = from_frame(each.frame);
      EXPECT_TRUE(envelope.has_value()) << each.frame.body;
      out.push_back({each, type, envelope.value_or(Envelope{})});
    }
    return out;
  }
  /// Changes of state that were sent to workers, in order; of one type, or all.
  std::vector<Told> told(std::string_view type = "") const {
    std::vector<Told> out;
    for (const Sent& sent : sent(FrameType::state_changes)) {
      const StateChanges changes = sent.body<StateChanges>();
      for (const StateEvent& each : changes.events) {
        if (!type.empty() && each.type != type) continue;
        out.push_back({sent.effect.worker_id, sent.envelope.urgency, sent.envelope.op_id, changes.snapshot, each});
      }
    }
    return out;
  }
  /// The worker answers one change.
  void applied(const Told& told, std::vector<RejectedSetting> rejected = {}) {
    AppliedResult result{told.event.type, told.event.subject, told.event.rev, AppliedOutcome::applied, "", {}};
    if (!rejected.empty()) {
      result.outcome = AppliedOutcome::rejected;
      result.reason = rejected.front().reason;
      result.settings = std::move(rejected);
    }
    say(told.worker_id.str(), FrameType::state_applied, StateApplied{told.event.rev, {result}}, 0, told.op_id);
  }
  const Tables& tables() const { return machine.tables(); }
  processing::JobStage stage_of(const std::string& job) const { return tables().processing.jobs.at(job).stage; }

  // ---- what the world does --------------------------------------------------------------------------------------

  void start() { input(in::Started{"cluster", sha256_hex("sesame")}); }
  /// Models of two components each.
  void scan(const std::vector<ModelId>& models = {tiny}) {
    in::ModelsScanned scan;
    for (const ModelId& id : models) scan.models.push_back(scanned(id));
    input(scan);
  }
  static in::ScannedModel scanned(const ModelId& id) {
    in::ScannedModel scanned;
    scanned.model = {.model_id = id,
                     .kind = model::Kind::sdxl,
                     .path = cat("/models/", id.str()),
                     .availability = model::Availability::available,
                     .reason = "",
                     .bytes = 150_MiB,
                     .components = {},
                     .facts = {}};
    for (const auto& [name, bytes] : {std::pair("unet", 100_MiB), std::pair("vae", 50_MiB)}) {
      scanned.model.components.push_back(
          {.name = name, .files = {}, .tensors = 1, .dtypes = {"F16"}, .segment_bytes = bytes, .sha256 = ""});
      scanned.layouts.push_back(std::make_shared<const model::SegmentLayout>());
    }
    return scanned;
  }
  /// The newest incarnation that was ordered for this worker.
  Incarnation incarnation(const std::string& worker) const {
    const auto dialed = incarnations_.find(worker);
    Incarnation newest = dialed == incarnations_.end() ? Incarnation{} : dialed->second;
    for (const out::SpawnWorker& each : all<out::SpawnWorker>()) {
      if (each.worker.worker_id == WorkerId(worker)) newest = each.incarnation;
    }
    return newest;
  }
  /// The spawned process says hello and is ready.
  void join(const std::string& worker) {
    sequence_[worker] = 0;
    links_.erase(worker);
    incarnations_.erase(worker);
    input(in::WorkerSpawned{WorkerId(worker), incarnation(worker), 4000, 77, 0, cat("token of ", worker)});
    Hello hello{WorkerId(worker), "test", 4000};
    hello.schema_digest = schema_digest;
    say(worker, FrameType::hello, hello);
    say(worker, FrameType::ready, Ready{});
  }
  template <class Body>
  Envelope envelope(const std::string& worker, const Body& body, std::uint32_t attempt = 0,
                    std::string op_id = {}) const {
    const auto sequence = sequence_.find(worker);
    Envelope out;
    out.source = {Side::worker, WorkerId(worker), incarnation(worker)};
    out.epoch = machine.live().epoch;
    out.sequence = sequence == sequence_.end() ? 1 : sequence->second + 1;
    out.op_id = std::move(op_id);
    out.attempt = attempt;
    out.body.text = json::to_text(body);
    return out;
  }
  template <class Body>
  void say(const std::string& worker, FrameType type, const Body& body, std::uint32_t attempt = 0,
           std::string op_id = {}, std::vector<HandleId> handles = {}) {
    const Envelope message = envelope(worker, body, attempt, std::move(op_id));
    sequence_[worker] = message.sequence;
    const auto live = machine.live().workers.find(WorkerId(worker));
    const Form form = live == machine.live().workers.end() ? Form::json : live->second.form;
    say_raw(worker, to_frame(type, message, body, handles.size(), form), std::move(handles));
  }
  void say_raw(const std::string& worker, Frame frame, std::vector<HandleId> handles = {}) {
    input(
        in::FrameArrived{WorkerId(worker), incarnation(worker), std::move(frame), std::move(handles), links_[worker]});
  }
  /// A hello over a connection of its own.
  void dial(LinkId link, const Hello& hello, Incarnation incarnation = {}, in::Peer peer = here(),
            std::vector<HandleId> handles = {}, std::vector<std::string> identities = {}) {
    Envelope message;
    message.source = {Side::worker, hello.worker_id, incarnation};
    message.sequence = 1;
    message.body.text = json::to_text(hello);
    const std::string& worker = hello.worker_id.str();
    input(in::WorkerDialed{link, std::move(peer), cat("token ", link),
                           to_frame(FrameType::hello, message, handles.size()), std::move(handles),
                           std::move(identities)});
    const auto accepted = all<out::AcceptLink>();
    if (accepted.empty() || accepted.back().link != link) return;
    sequence_[worker] = 1;
    links_[worker] = link;
    incarnations_[worker] = accepted.back().incarnation;
  }
  static in::Peer here() {
    in::Peer peer;
    peer.pid = 4000;
    peer.start_ticks = 77;
    return peer;
  }
  /// The sentence of the last refusal; empty when there was none.
  std::string refusal() const {
    const auto refused = all<out::RefuseLink>();
    if (refused.empty()) return "";
    return json::from_text<Refused>(from_frame(refused.back().frame).value().body.text).value().reason;
  }
  void generate(ReplyId reply, bool wait = true, std::uint32_t n = 1) { generate_with(reply, {.n = n}, wait); }
  /// `body` without its prompt.
  void generate_with(ReplyId reply, GenerateBody body, bool wait = true) {
    body.prompt = "a lighthouse";
    input(in::Generate{reply, body, 7, wait});
  }
  void fill_segments() {
    for (const out::FillSegment& each : all<out::FillSegment>()) {
      const auto segment = machine.live().segments.find({each.model_id, each.component});
      if (segment == machine.live().segments.end() || segment->second.state != SegmentState::filling) continue;
      input(in::SegmentFilled{each.model_id, each.component, std::string(64, 'a')});
    }
  }
  void die(const std::string& worker, std::string how = "signal 11 (Segmentation fault)") {
    input(in::WorkerGone{WorkerId(worker), incarnation(worker), std::move(how)});
  }

  // ---- shortcuts along the main path ----------------------------------------------------------------------------

  void ready() {
    start();
    scan();
    for (const out::SpawnWorker& each : all<out::SpawnWorker>()) join(each.worker.worker_id.str());
  }
  /// The transaction that was prepared last.
  TransactionId prepared() const {
    const auto prepares = sent(FrameType::transaction_prepare);
    EXPECT_FALSE(prepares.empty());
    return prepares.empty() ? TransactionId() : prepares.back().body<TransactionPrepare>().transaction_id;
  }
  void vote(const std::string& worker, const TransactionId& transaction, Vote vote, std::string reason = "") {
    say(worker, FrameType::transaction_vote, TransactionVote{transaction, vote, std::move(reason)}, 0,
        transaction.str());
  }
  void loaded(const std::string& worker, const TransactionId& transaction, const ModelId& model = tiny) {
    say(worker, FrameType::transaction_ack, TransactionAck{transaction}, 0, transaction.str());
    say(worker, FrameType::model_loading_progress,
        ModelLoadingProgress{model, "loaded", Percent{100}, 150_MiB, Timestamp{}, {}}, 0,
        cat("load:", transaction.str()));
  }
  /// From an accepted request to its inference running on w0.
  void until_inferring() {
    fill_segments();
    const TransactionId transaction = prepared();
    vote("w0", transaction, Vote::vote_commit);
    loaded("w0", transaction);
  }
  static ImageBuffer picture(std::string format) { return {std::move(format), 8, 8, 192, std::string(64, 'b')}; }
  /// The worker's answer to the newest inference_request.
  void inference_done(const std::string& worker, HandleId handle) {
    const auto request = sent(FrameType::inference_request);
    ASSERT_FALSE(request.empty());
    InferenceCompleted done;
    done.request_id = request.back().envelope.op_id;
    done.result_location = cat("sha256:", std::string(64, 'b'));
    done.result = picture("rgb8");
    say(worker, FrameType::inference_completed, done, request.back().envelope.attempt, done.request_id, {handle});
  }
  void postprocessing_done(const std::string& worker, HandleId handle, const std::string& format = "png") {
    const auto request = sent(FrameType::postprocessing_request);
    ASSERT_FALSE(request.empty());
    PostprocessingCompleted done;
    done.request_id = request.back().envelope.op_id;
    done.output = picture(format);
    say(worker, FrameType::postprocessing_completed, done, request.back().envelope.attempt, done.request_id, {handle});
  }
  void stored() {
    const auto orders = all<out::StorePixels>();
    ASSERT_FALSE(orders.empty());
    input(in::PixelsStored{orders.back().job_id, orders.back().attempt, orders.back().expected});
  }
  void finish_image() {
    inference_done("w0", 100);
    postprocessing_done("w0", 101);
    stored();
  }

  /// Nothing of any load is left: no bytes, no lane, no residency, no decision.
  void expect_no_trace_of_a_load() const {
    EXPECT_EQ(tables().memory.allocations.size(), 0u);
    EXPECT_EQ(tables().device.reservations.size(), 0u);
    EXPECT_EQ(tables().model.residencies.size(), 0u);
    EXPECT_EQ(tables().transactions.decisions.size(), 0u);
  }
  /// The rows of one load, all of them or the test fails.
  void expect_one_load_held() const {
    EXPECT_EQ(tables().memory.allocations.size(), 1u);
    EXPECT_EQ(tables().model.residencies.size(), 1u);
  }

 private:
  static Lsn recovered(Orchestrator& machine, const std::vector<Record>& earlier) {
    const auto last = machine.recover(Recovered{Lsn{}, {}, earlier});
    EXPECT_TRUE(last.has_value()) << (last ? "" : last.error().message);
    return last.value_or(Lsn{});
  }

  Loop<Orchestrator> loop_;
  std::size_t seen_ = 0;  // of what was released
  std::vector<Record> unsynced_;
  std::map<std::string, std::uint64_t> sequence_;
  std::map<std::string, LinkId> links_;
  std::map<std::string, Incarnation> incarnations_;  // of those that dialed
};

}  // namespace lockstep::design
