// §1.1, §2.1: devices are governed by facts. What is set has two values, health has levels, and routes say which device
// does which work.

#include "tests/design/fixture.h"

#include "domains/device/config.h"

namespace lockstep::design {
namespace {

const DeviceId gpu_0("gpu_0");
const DeviceId gpu_1("gpu_1");

class Design_2_1_device : public testing::Test {
 protected:
  explicit Design_2_1_device(int workers = 2) : stage(settings_of(workers)) { stage.ready(); }

  out::Reply set(const std::string& path, const std::string& body, bool whole = true) {
    stage.input(in::Set{++replies, path, whole, body});
    const auto all = stage.all<out::Reply>();
    EXPECT_FALSE(all.empty());
    return all.empty() ? out::Reply{} : all.back();
  }
  void route(const std::string& table) {
    const out::Reply reply = set("routing", cat(R"({"routing_table":)", table, "}"));
    EXPECT_EQ(reply.status, 200) << reply.body;
  }
  void heat(const std::string& worker, const DeviceId& device, double temperature) {
    DeviceHealthUpdate update;
    update.device_id = device;
    update.health_metrics.temperature = temperature;
    stage.say(worker, FrameType::device_health_update, update);
  }
  /// The worker applies the newest change of this type, but for what it rejects.
  void confirm(const std::string& worker, std::string_view type, std::vector<RejectedSetting> rejected = {}) {
    std::vector<Told> told = stage.told(type);
    std::erase_if(told, [&](const Told& each) { return each.worker_id != WorkerId(worker); });
    ASSERT_FALSE(told.empty());
    stage.applied(told.back(), std::move(rejected));
  }
  device::Config config(const DeviceId& device = gpu_0) const { return stage.tables().device.config_of(device); }
  /// An image of a session of its own.
  void image_of(std::string_view session_class) {
    stage.input(command_at(++replies, "sessions", cat(R"({"session_class":")", session_class, R"("})")));
    GenerateBody body;
    body.session_id = stage.tables().processing.sessions.entries().rbegin()->first;
    stage.generate_with(++replies, body, false);
    stage.fill_segments();
  }
  /// Where the newest load was prepared.
  std::string prepared_on() const {
    const auto sent = stage.sent(FrameType::transaction_prepare);
    return sent.empty() ? "" : sent.back().effect.worker_id.str();
  }
  std::size_t events(const std::string& type) const {
    std::size_t count = 0;
    for (const out::Publish& each : stage.all<out::Publish>()) {
      for (const CommitEvent& event : each.events) count += event.type == type ? 1 : 0;
    }
    return count;
  }

  Stage stage;
  ReplyId replies = 1000;
};

// ---- configuration -------------------------------------------------------------------------------------------------

// §2.1: the printed configuration, sent to the device's worker and to no other, with a demand for confirmation.
TEST_F(Design_2_1_device, a_configuration_goes_to_the_devices_worker_only) {
  const out::Reply reply = set("devices/gpu_0/config", R"({"optimization_profile":"performance","power_limit":350,
                                                           "memory_allocation_policy":"aggressive"})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  const auto told = stage.told("device_config_update");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].worker_id, WorkerId("w0"));
  EXPECT_EQ(told[0].lane, Urgency::p1_high);
  const auto message = told[0].body<DeviceConfigUpdate>();
  EXPECT_EQ(message.device_id, gpu_0);
  EXPECT_EQ(message.changes.power_limit, 350u);
  EXPECT_TRUE(message.requires_confirmation);
}

// §2.1, step 5: intended and confirmed are two values; a rejected setting keeps both visible, with the reason.
TEST_F(Design_2_1_device, a_rejected_setting_stays_intended_and_unconfirmed) {
  stage.applies = false;
  set("devices/gpu_0/config", R"({"optimization_profile":"performance","power_limit":350})");
  EXPECT_EQ(config().confirmed_revision, 0u);
  confirm("w0", "device_config_update", {{"power_limit", "it needs rights"}});
  EXPECT_EQ(config().confirmed_revision, 1u);
  EXPECT_EQ(config().confirmed.optimization_profile, "performance");
  EXPECT_EQ(config().intended.power_limit, 350u);
  EXPECT_FALSE(config().confirmed.power_limit.has_value());
  ASSERT_EQ(config().rejected.size(), 1u);
  EXPECT_EQ(config().rejected[0].reason, "it needs rights");
  EXPECT_EQ(events("device_config_confirmed"), 1u);
}

TEST_F(Design_2_1_device, an_answer_to_an_older_configuration_confirms_nothing) {
  stage.applies = false;
  set("devices/gpu_0/config", R"({"optimization_profile":"performance"})");
  set("devices/gpu_0/config", R"({"optimization_profile":"efficiency"})");
  stage.applied(stage.told("device_config_update").front());
  EXPECT_EQ(config().confirmed_revision, 0u);
  EXPECT_FALSE(config().confirmed.optimization_profile.has_value());
}

TEST_F(Design_2_1_device, bad_settings_name_the_field_and_change_nothing) {
  const Rev rev = stage.machine.rev();
  for (const auto& [body, words] :
       {std::pair(R"({"optimization_profile":"turbo"})", "performance, balanced"),
        std::pair(R"({"power_limit":0})", "power_limit"), std::pair(R"({"powerlimit":100})", "unknown"),
        std::pair(R"({"access":{"work":["mining"],"session_classes":[]}})", "mining")}) {
    const out::Reply reply = set("devices/gpu_0/config", body);
    EXPECT_EQ(reply.status, 400);
    EXPECT_NE(reply.body.find(words), std::string::npos) << reply.body;
  }
  EXPECT_EQ(set("devices/gpu_9/config", "{}").status, 404);
  EXPECT_EQ(stage.machine.rev(), rev);
}

// §1.1: what was set outlives the worker and the orchestrator; a new incarnation is told again.
TEST_F(Design_2_1_device, a_new_incarnation_is_told_again_and_has_confirmed_nothing) {
  stage.applies = false;
  set("devices/gpu_0/config", R"({"optimization_profile":"performance"})");
  confirm("w0", "device_config_update");
  stage.die("w0");
  EXPECT_EQ(config().confirmed_revision, 0u);
  EXPECT_EQ(config().intended.optimization_profile, "performance");
  stage.now += seconds(60);
  stage.input(in::TimerFired{"restart:w0"});
  stage.join("w0");
  const auto told = stage.told("device_config_update");
  ASSERT_EQ(told.size(), 2u);
  EXPECT_TRUE(told.back().snapshot) << "it is all that the new process shall know";
}

// The allocation policy is more than a word: what it keeps free is not granted.
TEST_F(Design_2_1_device, a_conservative_policy_keeps_a_share_of_the_budget_free) {
  stage.applies = false;
  EXPECT_EQ(device::grantable(1000_MiB, config()), 1000_MiB);
  set("devices/gpu_0/config", R"({"memory_allocation_policy":"conservative"})");
  EXPECT_EQ(device::grantable(1000_MiB, config()), 850_MiB);
  confirm("w0", "device_config_update");
  // Until the worker has applied the wider policy, the narrower one holds.
  set("devices/gpu_0/config", R"({"memory_allocation_policy":"aggressive"})");
  EXPECT_EQ(device::grantable(1000_MiB, config()), 850_MiB);
  confirm("w0", "device_config_update");
  EXPECT_EQ(device::grantable(1000_MiB, config()), 1000_MiB);
}

// §1.1 command queue throttling: four unanswered commands at most; the newest of a kind takes the place of older ones.
TEST_F(Design_2_1_device, commands_to_one_device_are_throttled_and_the_newest_wins) {
  stage.applies = false;
  for (int i = 0; i < 10; ++i) {
    set("devices/gpu_0/config", cat(R"({"power_limit":)", 100 + i, "}"));
  }
  EXPECT_EQ(stage.told("device_config_update").size(), 4u);
  EXPECT_EQ(stage.machine.live().counters.commands_throttled, 6u);
  stage.applied(stage.told("device_config_update").front());
  const auto told = stage.told("device_config_update");
  ASSERT_EQ(told.size(), 5u);
  EXPECT_EQ(told.back().body<DeviceConfigUpdate>().changes.power_limit, 109u);
}

// ---- access --------------------------------------------------------------------------------------------------------

TEST_F(Design_2_1_device, a_device_does_only_the_work_it_is_given_access_for) {
  set("devices/gpu_0/config", R"({"access":{"work":["postprocessing"],"session_classes":[]}})");
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w1");
}

// §1.1 access control: the class is that of the image's session; an image without one is interactive.
TEST_F(Design_2_1_device, a_device_for_one_class_of_sessions_does_images_of_that_class_only) {
  const std::string batch_only = R"({"access":{"work":[],"session_classes":["batch"]}})";
  set("devices/gpu_0/config", batch_only);
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w1");
  image_of("batch");
  ASSERT_EQ(stage.sent(FrameType::transaction_prepare).size(), 2u);
  EXPECT_EQ(prepared_on(), "w0");
  set("devices/gpu_1/config", batch_only);
  stage.generate(2, false);
  stage.input(in::View{3, "requests/req_000001_000003"});
  EXPECT_NE(stage.all<out::Reply>().back().body.find("gpu_0 is not for interactive sessions (access/session_classes)"),
            std::string::npos)
      << stage.all<out::Reply>().back().body;
}

TEST_F(Design_2_1_device, a_route_leads_to_its_secondary_where_the_primary_is_not_for_the_sessions_class) {
  route(R"({"inference_primary":"gpu_0","inference_secondary":"gpu_1"})");
  set("devices/gpu_0/config", R"({"access":{"work":[],"session_classes":["interactive"]}})");
  image_of("batch");
  EXPECT_EQ(prepared_on(), "w1");
}

// ---- health --------------------------------------------------------------------------------------------------------

// §2.7: a critical health is a change of state, P0; a sample is not.
TEST_F(Design_2_1_device, a_critical_level_is_a_fact_and_a_sample_is_none) {
  stage.applies = false;
  const Rev rev = stage.machine.rev();
  heat("w0", gpu_0, 72.5);
  EXPECT_EQ(stage.machine.rev(), rev);
  heat("w0", gpu_0, 95);
  EXPECT_EQ(stage.machine.rev(), rev.next());
  EXPECT_EQ(stage.tables().device.devices.at("gpu_0").availability, device::Availability::error);
  EXPECT_NE(stage.tables().device.devices.at("gpu_0").reason.find("temperature 95"), std::string::npos);
  const auto published = stage.all<out::Publish>();
  bool critical = false;
  for (const out::Publish& each : published) {
    for (const CommitEvent& event : each.events) {
      critical = critical ||
                 (event.type == "device_health_changed" && event.body.text.find("p0_critical") != std::string::npos);
    }
  }
  EXPECT_TRUE(critical);
  heat("w0", gpu_0, 94);
  EXPECT_EQ(stage.machine.rev(), rev.next());
  heat("w0", gpu_0, 60);
  EXPECT_EQ(stage.tables().device.devices.at("gpu_0").availability, device::Availability::online);
}

TEST_F(Design_2_1_device, a_critical_device_gets_no_new_work) {
  heat("w0", gpu_0, 95);
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w1");
}

// §1.1: heat and faults make a device slow; the limit that people set for its power does not.
TEST_F(Design_2_1_device, a_device_that_slows_itself_down_is_degraded) {
  DeviceHealthUpdate update;
  update.device_id = gpu_0;
  update.diagnostics = DeviceDiagnostics{.throttle_reasons = std::vector<std::string>{"power_cap"}};
  stage.say("w0", FrameType::device_health_update, update);
  EXPECT_EQ(stage.tables().device.level_of(gpu_0), device::HealthLevel::ok);
  update.diagnostics->throttle_reasons = {"power_cap", "software_thermal"};
  stage.say("w0", FrameType::device_health_update, update);
  EXPECT_EQ(stage.tables().device.level_of(gpu_0), device::HealthLevel::degraded);
  update.diagnostics->throttle_reasons = std::vector<std::string>{};
  stage.say("w0", FrameType::device_health_update, update);
  EXPECT_EQ(stage.tables().device.level_of(gpu_0), device::HealthLevel::ok);
}

TEST_F(Design_2_1_device, limits_are_the_persons) {
  set("devices/gpu_0/config", R"({"health":{"temperature_degraded":60,"temperature_critical":70,
      "temperature_hysteresis":5,"errors_degraded":10,"errors_critical":100,"on_critical":"alert"}})");
  heat("w0", gpu_0, 75);
  EXPECT_EQ(stage.tables().device.level_of(gpu_0), device::HealthLevel::critical);
  EXPECT_EQ(stage.tables().device.devices.at("gpu_0").availability, device::Availability::online);
}

// §2.7: its worker places a sample by the limit that the levels are judged by, so it is told.
TEST_F(Design_2_1_device, a_worker_is_told_from_where_on_its_device_is_critical) {
  const auto policy = [](int critical, int errors) {
    return cat(R"({"health":{"temperature_degraded":60,"temperature_critical":)", critical,
               R"(,"temperature_hysteresis":5,"errors_degraded":10,"errors_critical":)", errors,
               R"(,"on_critical":"alert"}})");
  };
  const auto limits = [&] {
    std::vector<std::optional<double>> out;
    for (const Told& each : stage.told("device_config_update")) {
      EXPECT_EQ(each.worker_id, WorkerId("w0"));
      out.push_back(each.body<DeviceConfigUpdate>().temperature_critical);
    }
    return out;
  };
  set("devices/gpu_0/config", policy(80, 100));
  EXPECT_EQ(limits(), (std::vector<std::optional<double>>{80}));
  set("devices/gpu_0/config", policy(80, 200));
  EXPECT_EQ(limits().size(), 1u) << "errors are counted here";
  set("devices/gpu_0/config", R"({"power_limit":350})", false);
  set("devices/gpu_0/config", "{}");
  EXPECT_EQ(limits(), (std::vector<std::optional<double>>{80, 80, device::HealthLimits{}.temperature_critical}));
  set("devices/gpu_0/config", policy(75, 100));
  stage.die("w0");
  stage.now += seconds(60);
  stage.input(in::TimerFired{"restart:w0"});
  stage.join("w0");
  EXPECT_EQ(limits().back(), 75) << "the next process is told again";
  EXPECT_EQ(limits().size(), 5u);
}

// §1.1: a device whose worker is gone is offline with the reason, and nobody knows its health.
TEST_F(Design_2_1_device, a_device_that_vanishes_is_offline_with_the_reason) {
  heat("w0", gpu_0, 95);
  stage.die("w0");
  const device::Device& row = stage.tables().device.devices.at("gpu_0");
  EXPECT_EQ(row.availability, device::Availability::offline);
  EXPECT_NE(row.reason.find("signal 11"), std::string::npos);
  EXPECT_FALSE(stage.tables().device.health.contains("gpu_0"));
}

// ---- capabilities --------------------------------------------------------------------------------------------------

TEST_F(Design_2_1_device, capabilities_are_cached_with_their_rev_and_told_once) {
  DeviceCapabilityDiscovered report;
  report.device_id = gpu_0;
  report.new_capabilities = {"fp16_inference"};
  report.capability_scores.items = {{"inference_performance", 9.2}};
  stage.say("w0", FrameType::device_capability_discovered, report);
  const Rev rev = stage.machine.rev();
  EXPECT_EQ(stage.tables().device.capabilities.entries().at("gpu_0").mod_rev, rev);
  stage.say("w0", FrameType::device_capability_discovered, report);
  EXPECT_EQ(stage.machine.rev(), rev);
  report.new_capabilities.push_back("nvenc_encoding");
  stage.say("w0", FrameType::device_capability_discovered, report);
  EXPECT_EQ(stage.tables().device.capabilities.at("gpu_0").capabilities.size(), 2u);
}

TEST_F(Design_2_1_device, a_worker_reports_on_its_own_device_only) {
  DeviceCapabilityDiscovered report;
  report.device_id = gpu_1;
  stage.say("w0", FrameType::device_capability_discovered, report);
  EXPECT_TRUE(stage.tables().device.capabilities.entries().empty());
  EXPECT_EQ(stage.machine.live().counters.writes_refused.at({WorkerId("w0"), "device_capabilities"}), 1u);
  EXPECT_TRUE(stage.all<out::KillWorker>().empty());
}

// ---- routing -------------------------------------------------------------------------------------------------------

// §2.1: every worker hears the table, and the table is a fact with a revision.
TEST_F(Design_2_1_device, routes_are_a_fact_and_every_worker_confirms_them) {
  stage.applies = false;
  route(R"({"inference_primary":"gpu_1","postprocessing":"gpu_0"})");
  EXPECT_EQ(stage.told("device_routing_update").size(), 2u);
  confirm("w0", "device_routing_update");
  const device::Routing* routing = stage.tables().device.routes();
  ASSERT_NE(routing, nullptr);
  EXPECT_EQ(routing->confirmed_by.at("w0"), 1u);
  EXPECT_FALSE(routing->confirmed_by.contains("w1"));
  EXPECT_EQ(set("routing", R"({"routing_table":{"inference_primary":"gpu_9"}})").status, 404);
  EXPECT_EQ(set("routing", R"({"routing_table":{"dancing":"gpu_0"}})").status, 400);
}

TEST_F(Design_2_1_device, inference_goes_to_the_primary) {
  route(R"({"inference_primary":"gpu_1","inference_secondary":"gpu_0"})");
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w1");
}

TEST_F(Design_2_1_device, inference_goes_to_the_secondary_when_the_primary_is_lost) {
  route(R"({"inference_primary":"gpu_1","inference_secondary":"gpu_0"})");
  stage.die("w1");
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w0");
}

TEST_F(Design_2_1_device, inference_goes_to_the_secondary_when_the_primary_is_not_healthy) {
  route(R"({"inference_primary":"gpu_1","inference_secondary":"gpu_0"})");
  heat("w1", gpu_1, 85);
  stage.generate(1);
  stage.fill_segments();
  EXPECT_EQ(prepared_on(), "w0");
}

// The primary is killed while it works: its image goes to the secondary.
TEST_F(Design_2_1_device, the_work_of_a_killed_primary_goes_to_the_secondary) {
  route(R"({"inference_primary":"gpu_1","inference_secondary":"gpu_0"})");
  stage.generate(1);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  stage.vote("w1", transaction, Vote::vote_commit);
  stage.loaded("w1", transaction);
  ASSERT_EQ(stage.sent(FrameType::inference_request).size(), 1u);
  EXPECT_EQ(stage.sent(FrameType::inference_request)[0].effect.worker_id, WorkerId("w1"));
  stage.die("w1");
  EXPECT_EQ(prepared_on(), "w0");
}

// The primary is busy for a second and has the model; the secondary would load it for ten: waiting is sooner. With
// nineteen seconds to go it is not.
TEST_F(Design_2_1_device, the_secondary_is_taken_when_the_primary_would_start_later_by_measure) {
  route(R"({"inference_primary":"gpu_0","inference_secondary":"gpu_1"})");
  stage.generate(1);
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.now += seconds(10);
  stage.loaded("w0", transaction);
  ASSERT_EQ(stage.sent(FrameType::inference_request).size(), 1u);
  const std::string run = stage.sent(FrameType::inference_request)[0].envelope.op_id;
  const auto at_step = [&](std::uint32_t step) {
    stage.say("w0", FrameType::inference_progress,
              InferenceProgress{run, {step, 20, 1.0, Timestamp{}}, {SizeText{"0B"}, Percent{0}}}, 1, run);
  };
  at_step(19);
  stage.generate(2);
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);
  at_step(1);
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 2u);
  EXPECT_EQ(prepared_on(), "w1");
}

// §2.1: an update moves queued work, and leaves running work where it is.
TEST_F(Design_2_1_device, an_update_moves_queued_work_and_leaves_running_work) {
  route(R"({"inference_primary":"gpu_0"})");
  stage.generate(1);
  stage.until_inferring();
  stage.generate(2);
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 1u);  // it waits for gpu_0, though gpu_1 is idle
  route(R"({"inference_primary":"gpu_1"})");
  stage.fill_segments();
  EXPECT_EQ(stage.sent(FrameType::transaction_prepare).size(), 2u);
  EXPECT_EQ(prepared_on(), "w1");
  EXPECT_EQ(stage.tables().processing.jobs.at("req_000001_000001/00").worker_id, WorkerId("w0"));
  EXPECT_EQ(stage.stage_of("req_000001_000001/00"), processing::JobStage::inferring);
}

}  // namespace
}  // namespace lockstep::design
