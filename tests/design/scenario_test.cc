// Scenarios as readable text: tests/scenarios/*.txt, one sentence a line, played on the real orchestrator. A line that is
// no sentence of the table below fails the scenario, and so does one that names what is not there.

#include <filesystem>
#include <fstream>
#include <functional>
#include <regex>
#include <vector>

#include "operations/sagas.h"
#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

class Scenario {
 public:
  /// The problem, or nothing when every line held.
  std::string play(std::istream& text) {
    std::string line;
    for (int number = 1; std::getline(text, line); ++number) {
      if (line.empty() || line.starts_with('#')) continue;
      if (const std::string problem = say(line); !problem.empty()) return cat("line ", number, ": ", line, "\n", problem);
    }
    return "";
  }

 private:
  using Words = std::smatch;
  struct Sentence {
    std::string pattern;
    std::function<std::string(const Words&)> act;
  };

  std::string say(const std::string& line) {
    for (const Sentence& each : sentences()) {
      Words words;
      if (!std::regex_match(line, words, std::regex(each.pattern))) continue;
      if (stage == nullptr && !each.pattern.starts_with("workers")) return "no worker is there yet";
      return each.act(words);
    }
    return "this is no sentence that a scenario knows";
  }

  std::vector<Sentence> sentences() {
    return {
        {R"(workers (\d+))", [&](const Words& w) { return begin(std::stoi(w[1])); }},
        {"every worker applies what it is told", [&](const Words&) { return applies(true); }},
        {"nobody answers", [&](const Words&) { return applies(false); }},
        {"generate", [&](const Words&) { return generate(); }},
        {"generate and load on w0", [&](const Words&) { return generate_and_load(); }},
        {"the cache fills", [&](const Words&) { return done([&] { stage->fill_segments(); }); }},
        {R"((\w+) votes commit)",
         [&](const Words& w) { return done([&] { stage->vote(w[1], stage->prepared(), Vote::vote_commit); }); }},
        {R"((\w+) has loaded the model)",
         [&](const Words& w) { return done([&] { stage->loaded(w[1], stage->prepared()); }); }},
        {R"((\w+) delivers the inference)", [&](const Words& w) { return done([&] { stage->inference_done(w[1], 100); }); }},
        {R"((\w+) reports temperature (\d+))", [&](const Words& w) { return heat(w[1], std::stod(w[2])); }},
        {R"((\w+) reports memory ([0-9.]+))", [&](const Words& w) { return fill(w[1], std::stod(w[2])); }},
        {R"(set policies/safety (\w+))", [&](const Words& w) { return safety(w[1]); }},
        {R"(set (\S+) (\{.*\}))", [&](const Words& w) { return set(w[1], w[2]); }},
        {"roll back what was delivered", [&](const Words&) { return roll_back(); }},
        {"the disk removes the file", [&](const Words&) { return removes({}); }},
        {R"(the disk refuses to remove the file(?: (\d+) times)?)", [&](const Words& w) { return refuses(w[1]); }},
        {"the wait is over", [&](const Words&) { return wait_over(); }},
        {"the orchestrator is killed and starts again", [&](const Words&) { return restart(); }},
        {R"(a person resolves it by (\w+))", [&](const Words& w) { return resolve(w[1]); }},
        {R"(expect (\d+) files? (?:is|are) to be removed)", [&](const Words& w) { return expect_removals(std::stoul(w[1])); }},
        {R"(expect the rollback is (\w+))", [&](const Words& w) { return expect_rollback(w[1]); }},
        {R"(expect the event (\w+))", [&](const Words& w) { return expect_event(w[1]); }},
        {"pause the session", [&](const Words&) { return pause(); }},
        {R"((\w+) applies (\w+))", [&](const Words& w) { return apply(w[1], w[2]); }},
        {R"(expect (\w+) is told (\w+)(?: of (\w+))? in P(\d))",
         [&](const Words& w) { return expect_told(w[1], w[2], w[3], std::stoi(w[4])); }},
        {R"(expect nobody is told (\w+)(?: of (\w+))?)", [&](const Words& w) { return expect_untold(w[1], w[2]); }},
        {R"(expect (\w+) is sent (no )?(\w+))",
         [&](const Words& w) { return expect_sent(w[1], w[3], !w[2].matched); }},
        {R"(expect device (\w+) is (\w+))", [&](const Words& w) { return expect_device(w[1], w[2]); }},
    };
  }

  template <class F>
  static std::string done(F&& f) {
    f();
    return "";
  }
  std::string begin(int workers) {
    stage = std::make_unique<Stage>(settings_of(workers));
    stage->ready();
    return "";
  }
  std::string applies(bool on) {
    stage->applies = on;
    return "";
  }
  std::string generate() {
    stage->generate(1);
    return "";
  }
  std::string generate_and_load() {
    stage->input(in::CommandSession{{++replies, "sessions", "{}"}});
    const auto reply = stage->all<out::Reply>().back();
    if (reply.status != 201) return reply.body;
    session = stage->tables().processing.sessions.entries().begin()->first;
    GenerateBody body;
    body.prompt = "a lighthouse";
    body.session_id = session;
    stage->input(in::Generate{++replies, body, 7, false});
    stage->until_inferring();
    return stage->sent(FrameType::inference_request).empty() ? "no inference began" : "";
  }
  /// Two images are delivered, the third fails its gate, and takes them back.
  std::string roll_back() {
    GenerateBody body;
    body.n = 3;
    body.error_handling = processing::ErrorHandling::cascade_rollback;
    stage->generate_with(++replies, body);
    stage->until_inferring();
    for (const char content : {'c', 'd'}) {
      stage->now += seconds(1);
      stage->inference_done("w0", 100);
      judged("safe", 0.99, content);
      const out::StorePixels store = stage->all<out::StorePixels>().back();
      stage->input(in::PixelsStored{store.job_id, store.attempt, store.expected});
    }
    if (const std::string problem = safety("v2"); !problem.empty()) return problem;
    stage->inference_done("w0", 102);
    judged("unsafe", 0.1, 'e');
    return "";
  }
  void judged(const std::string& verdict, double score, char content) {
    const auto asked = stage->sent(FrameType::postprocessing_request).back();
    PostprocessingCompleted done;
    done.request_id = asked.envelope.op_id;
    done.final_results.safety_analysis = SafetyAnalysis{score, verdict, {}};
    done.output = Stage::picture("png");
    done.output->sha256 = std::string(64, content);
    stage->say("w0", FrameType::postprocessing_completed, done, asked.envelope.attempt, done.request_id, {101});
  }
  std::string removes(Status status) {
    const auto asked = stage->all<out::RemoveOutput>();
    if (asked.size() == answered) return "nobody asked for a removal";
    answered = asked.size();
    stage->input(in::OutputRemoved{asked.back().saga_id, asked.back().sha256, std::move(status)});
    return "";
  }
  std::string refuses(const std::string& times) {
    for (int i = 0; i < (times.empty() ? 1 : std::stoi(times)); ++i) {
      if (i > 0) wait_over();
      const auto problem = removes(fail(ErrorCode::unavailable, "cannot remove it: Read-only file system"));
      if (!problem.empty()) return problem;
    }
    return "";
  }
  std::string wait_over() {
    stage->input(in::TimerFired{stage->all<out::ArmTimer>().back().name});
    return "";
  }
  std::string restart() {
    stage = std::make_unique<Stage>(settings_of(1), std::vector<Record>(stage->journal));
    answered = 0;
    stage->start();
    return "";
  }
  std::string resolve(const std::string& decision) {
    const std::string id = rollback_of(RequestId("req_000001_000001")).str();
    stage->input(in::ResolveTransaction{{++replies, cat("transactions/", id, "/resolve"),
                                         cat(R"({"decision":")", decision, R"(","reason":"seen"})")}});
    const auto reply = stage->all<out::Reply>().back();
    return reply.status == 200 ? "" : reply.body;
  }
  std::string expect_removals(std::size_t count) const {
    const auto& sagas = stage->tables().transactions.sagas.entries();
    const std::size_t due = sagas.empty() ? 0 : sagas.begin()->second.row.due.size();
    return due == count ? "" : cat(due, " are");
  }
  std::string expect_rollback(const std::string& state) {
    const std::string id = rollback_of(RequestId("req_000001_000001")).str();
    stage->input(in::View{++replies, cat("transactions/", id)});
    const std::string body = stage->all<out::Reply>().back().body;
    return body.find(cat(R"("state":")", state, '"')) != std::string::npos ? "" : body;
  }
  std::string expect_event(const std::string& type) const {
    for (const Record& record : stage->journal) {
      const Commit commit = decode_commit(record.body).value();
      if (std::ranges::any_of(commit.events, [&](const auto& each) { return each.type == type; })) return "";
    }
    return "there was none";
  }
  std::string pause() {
    stage->input(in::CommandSession{{++replies, cat("sessions/", session, "/pause"), "{}"}});
    const auto reply = stage->all<out::Reply>().back();
    return reply.status == 200 ? "" : reply.body;
  }
  std::string heat(const std::string& worker, double temperature) {
    DeviceHealthUpdate update;
    update.device_id = device_of(worker);
    update.health_metrics.temperature = temperature;
    stage->say(worker, FrameType::device_health_update, update);
    return "";
  }
  std::string fill(const std::string& worker, double share) {
    VramUsageUpdate update;
    update.device_id = device_of(worker);
    const auto used = static_cast<std::uint64_t>(share * 1000);
    update.vram_metrics = {1000_MiB, Bytes{used << 20}, Bytes{(1000 - used) << 20}, Ratio{0}};
    stage->say(worker, FrameType::vram_usage_update, update);
    return "";
  }
  std::string set(const std::string& path, const std::string& body) {
    stage->input(in::Set{++replies, path, false, body});
    const auto reply = stage->all<out::Reply>().back();
    return reply.status == 200 ? "" : reply.body;
  }
  std::string safety(const std::string& version) {
    stage->input(in::SetSafetyPolicy{
        {++replies, "policies/safety",
         cat(R"({"event_type":"safety_policy_update","policy_version":")", version,
             R"(","safety_thresholds":{"content_safety_minimum":0.95,"quality_minimum":7.0,)",
             R"("technical_compliance":"strict"},"enforcement_actions":{"below_safety_threshold":"reject",)",
             R"("below_quality_threshold":"flag_for_review"}})")}});
    const auto reply = stage->all<out::Reply>().back();
    return reply.status == 200 ? "" : reply.body;
  }
  std::string apply(const std::string& worker, const std::string& type) {
    std::vector<Told> told = stage->told(type);
    std::erase_if(told, [&](const Told& each) { return each.worker_id != WorkerId(worker); });
    if (told.empty()) return cat(worker, " was not told of it");
    stage->applied(told.back());
    return "";
  }
  std::string expect_told(const std::string& worker, const std::string& type, const std::string& device, int lane) const {
    for (const Told& each : stage->told(type)) {
      const bool same = each.worker_id == WorkerId(worker) && (device.empty() || each.event.subject == device);
      if (same && static_cast<int>(each.lane) == lane) return "";
    }
    return cat("what was told: ", all_told());
  }
  std::string expect_untold(const std::string& type, const std::string& device) const {
    for (const Told& each : stage->told(type)) {
      if (device.empty() || each.event.subject == device) return cat(each.worker_id.str(), " was told");
    }
    return "";
  }
  std::string expect_sent(const std::string& worker, const std::string& type, bool wanted) const {
    bool known = false;
    bool sent = false;
    boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([&](auto each) {
      if (type != each.name) return;
      known = true;
      for (const Sent& frame : stage->sent(each.value)) sent = sent || frame.effect.worker_id == WorkerId(worker);
    });
    if (!known) return "no frame has this name";
    return sent == wanted ? "" : cat(worker, sent ? " was sent it" : " was not sent it");
  }
  std::string expect_device(const std::string& device, const std::string& state) const {
    const std::string is = json::enum_name(stage->tables().device.devices.at(device).availability);
    return is == state ? "" : cat("it is ", is);
  }
  static DeviceId device_of(const std::string& worker) { return DeviceId(cat("gpu_", worker.substr(1))); }
  std::string all_told() const {
    std::string out;
    for (const Told& each : stage->told()) {
      out += cat(each.worker_id.str(), " ", each.event.type, " ", each.event.subject, " P", static_cast<int>(each.lane),
                 "; ");
    }
    return out;
  }

  std::unique_ptr<Stage> stage;
  std::string session;
  std::size_t answered = 0;  // removals of files
  ReplyId replies = 1000;
};

std::vector<std::filesystem::path> scenarios() {
  std::vector<std::filesystem::path> out;
  for (const auto& each : std::filesystem::directory_iterator(LOCKSTEP_SOURCE_DIR "/tests/scenarios")) {
    out.push_back(each.path());
  }
  std::ranges::sort(out);
  return out;
}

class Design_scenario : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Design_scenario, every_line_holds) {
  std::ifstream file(GetParam());
  ASSERT_TRUE(file.is_open());
  EXPECT_EQ(Scenario().play(file), "");
}
INSTANTIATE_TEST_SUITE_P(All, Design_scenario, testing::ValuesIn(scenarios()),
                         [](const auto& each) { return each.param.stem().string(); });

// The net itself: a sentence that does not hold, and one that nobody knows, are told with their line.
TEST(Design_scenario_self, a_line_that_does_not_hold_is_named) {
  std::istringstream wrong("workers 1\n\nexpect w0 is sent inference_request\n");
  EXPECT_NE(Scenario().play(wrong).find("line 3"), std::string::npos);
  std::istringstream unknown("workers 1\nw0 sings\n");
  EXPECT_NE(Scenario().play(unknown).find("no sentence"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::design
