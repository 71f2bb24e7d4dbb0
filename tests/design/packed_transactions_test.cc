// §3.5, decision 0041: a load is decided between the two real machines in whichever form their link has agreed on:
// packed where both announce the same schema digest, JSON everywhere else, and the same comes of it.

#include <array>
#include <deque>
#include <fstream>
#include <map>
#include <sstream>

#include "propagation/packed_frame.h"
#include "tests/design/fixture.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::design {
namespace {

const std::string this_schema(64, '1');
const std::string another_schema(64, '2');
const WorkerId w0("w0");

bool is_hex(char letter) { return std::string_view("0123456789abcdef").contains(letter); }

/// The orchestrator and one worker of perhaps another version. What one sends is numbered and arrives at the other.
class Ends {
 public:
  Ends(std::string ours, std::string theirs)
      : stage(with(std::move(ours))), worker_(started(stage, std::move(theirs))) {
    tell(worker::in::LinkOpened{});
    exchange();
    tell(worker::in::HandlersReady{});
    exchange();
    stage.generate(1);
    stage.fill_segments();
    exchange();
  }

  Stage stage;
  std::map<FrameType, bool> packed;  // of the frames that crossed, by the last of each type

 private:
  static Settings with(std::string schema) {
    Settings settings = settings_of(1);
    settings.schema_digest = std::move(schema);
    return settings;
  }
  static worker::Identity started(Stage& stage, std::string schema) {
    stage.applies = false;  // the worker says itself what it has applied
    stage.start();
    stage.scan();
    stage.input(in::WorkerSpawned{w0, stage.incarnation("w0"), 4000, 77, 0, "token"});
    worker::Identity out;
    out.worker_id = w0;
    out.incarnation = stage.incarnation("w0");
    out.pid = 4000;
    out.version = "test";
    out.schema_digest = std::move(schema);
    return out;
  }

  Frame crossing(Frame frame, std::array<std::uint64_t, 4>& sequence) {
    const Urgency lane = frame.header.urgency;
    packed[static_cast<FrameType>(frame.header.type)] = frame.header.packed;
    number(frame, lane, ++sequence[static_cast<std::size_t>(lane)]);
    return frame;
  }
  template <class What>
  void tell(What what) {
    for (worker::Effect& each : worker_.step({stage.now, stage.wall(), std::move(what)}).effects) {
      said_.push_back(std::move(each));
    }
  }
  void carry_out(const worker::Effect& effect) {
    if (const auto* send = std::get_if<worker::out::Send>(&effect.what)) {
      stage.input(in::FrameArrived{w0, stage.incarnation("w0"), crossing(send->frame, from_worker_), {}, 0});
    } else if (const auto* task = std::get_if<worker::out::StartTask>(&effect.what)) {
      if (task->kind == "load") tell(worker::in::TaskDone{task->task, json::to_text(LoadDone{150_MiB, 1.0}), {}});
    } else if (const auto* exit = std::get_if<worker::out::Exit>(&effect.what)) {
      ADD_FAILURE() << exit->reason;
    }
  }
  /// Until neither has anything to say.
  void exchange() {
    while (heard_ < stage.released.size() || !said_.empty()) {
      if (!said_.empty()) {
        const worker::Effect first = std::move(said_.front());
        said_.pop_front();
        carry_out(first);
        continue;
      }
      const Effect effect = stage.released[heard_++];
      const auto* send = std::get_if<out::SendFrame>(&effect.what);
      if (send == nullptr) continue;
      std::vector<HandleId> handles(send->attachments.size());
      for (HandleId& each : handles) each = ++handles_made_;
      tell(worker::in::FrameArrived{crossing(send->frame, to_worker_), std::move(handles)});
    }
  }

  worker::Machine worker_;
  std::deque<worker::Effect> said_;
  std::size_t heard_ = 0;  // of what the orchestrator released
  HandleId handles_made_ = 0;
  std::array<std::uint64_t, 4> to_worker_{};
  std::array<std::uint64_t, 4> from_worker_{};
};

constexpr std::array of_a_load{FrameType::transaction_prepare, FrameType::transaction_vote,
                               FrameType::transaction_commit,  FrameType::transaction_ack,
                               FrameType::model_load_request,  FrameType::model_loading_progress};

void expect_loaded(const Ends& ends) {
  const auto& residencies = ends.stage.tables().model.residencies.entries();
  ASSERT_EQ(residencies.size(), 1u);
  EXPECT_EQ(residencies.begin()->second.row.state, model::ResidencyState::loaded);
  EXPECT_EQ(ends.stage.tables().transactions.decisions.size(), 0u);
  EXPECT_TRUE(ends.stage.all<out::KillWorker>().empty());
  EXPECT_TRUE(ends.packed.contains(FrameType::inference_request)) << "the job waits for its model";
}

TEST(Design_3_5_packed_transactions, between_ends_of_one_schema_a_whole_load_crosses_packed) {
  const Ends ends(this_schema, this_schema);
  expect_loaded(ends);
  for (const FrameType type : of_a_load) EXPECT_TRUE(ends.packed.at(type)) << json::enum_name(type);
  for (const FrameType type : {FrameType::hello, FrameType::welcome, FrameType::ready}) {
    EXPECT_FALSE(ends.packed.at(type)) << json::enum_name(type);
  }
}

TEST(Design_3_5_packed_transactions, between_ends_of_two_schemas_a_whole_load_crosses_as_json) {
  for (const auto& [ours, theirs] : std::vector<std::pair<std::string, std::string>>{
           {this_schema, another_schema}, {this_schema, ""}, {"", this_schema}, {"", ""}}) {
    const Ends ends(ours, theirs);
    expect_loaded(ends);
    for (const FrameType type : of_a_load) EXPECT_FALSE(ends.packed.at(type)) << json::enum_name(type);
  }
}

TEST(Design_3_5_packed_transactions, a_load_comes_to_the_same_state_in_either_form) {
  const Ends packed(this_schema, this_schema);
  const Ends json(this_schema, another_schema);
  EXPECT_EQ(packed.stage.machine.digest(), json.stage.machine.digest());
}

/// The bytes of the page's example: of each line what stands ahead of its words.
std::string described_bytes() {
  std::ifstream page(cat(LOCKSTEP_SOURCE_DIR, "/docs/formats/wire.md"));
  std::string line, out;
  while (std::getline(page, line) && line != "```hex") continue;
  while (std::getline(page, line) && line != "```") {
    std::istringstream words(line);
    for (std::string word; words >> word && word.size() == 2 && std::ranges::all_of(word, is_hex);) {
      out += static_cast<char>(std::stoi(word, nullptr, 16));
    }
  }
  return out;
}

TEST(Design_3_5_packed_transactions, an_acknowledgement_has_the_bytes_of_its_description) {
  const TransactionId transaction("tx_3_17");
  Envelope envelope;
  envelope.id = "w12.6";
  envelope.source = {Side::worker, WorkerId("worker_0"), Incarnation{12}};
  envelope.epoch = Epoch{3};
  envelope.sequence = 6;
  envelope.time = Timestamp{"2026-11-23T10:30:45.123Z"};
  envelope.urgency = Urgency::p1_high;
  envelope.op_id = transaction.str();
  envelope.correlation.transaction = transaction;
  const Frame frame = to_frame(FrameType::transaction_ack, envelope, TransactionAck{transaction}, 0, Form::packed);
  std::string bytes;
  append_frame(bytes, frame.header, frame.body);
  EXPECT_EQ(bytes, described_bytes());
}

}  // namespace
}  // namespace lockstep::design
