// Design §1, promise 3: nothing accepted is lost, nothing is delivered twice, and a poisonous job is set aside.

#include <set>

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

using processing::JobStage;

constexpr const char* job0 = "req_000001_000001/00";
constexpr const char* job1 = "req_000001_000001/01";

// What is accepted needs room for its record and its image: below the low water nothing new is, and what was goes on.
TEST(Design_accept, on_a_nearly_full_disk_nothing_new_is_accepted_and_the_rest_goes_on) {
  Settings settings = settings_of(1);
  settings.disk_low_water = 100_MiB;
  Stage stage(std::move(settings));
  stage.ready();
  stage.input(in::DataDisk{100_MiB});
  stage.generate(1);
  stage.input(in::DataDisk{99_MiB});
  stage.generate(2);
  const out::Reply refused = stage.all<out::Reply>().back();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find("the disk of the data directory has 99MB left; below 100MB"), std::string::npos)
      << refused.body;
  stage.input(in::CommandWorkflow{{3, "workflows/sdxl_generation_pipeline/run", R"({"prompt":"p"})"}});
  EXPECT_EQ(stage.all<out::Reply>().back().status, 503);
  stage.input(in::DataDisk{120_MiB});  // within the hysteresis
  stage.generate(4);
  EXPECT_EQ(stage.all<out::Reply>().back().status, 503);
  EXPECT_EQ(stage.tables().processing.requests.size(), 1u);
  stage.until_inferring();
  EXPECT_EQ(stage.stage_of(job0), JobStage::inferring);
  stage.input(in::DataDisk{125_MiB});
  stage.generate(5);
  EXPECT_EQ(stage.tables().processing.requests.size(), 2u);
}

TEST(Design_accept, an_image_goes_through_every_stage_and_is_answered_once) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(5);
  EXPECT_EQ(stage.stage_of(job0), JobStage::queued);
  stage.until_inferring();
  EXPECT_EQ(stage.stage_of(job0), JobStage::inferring);
  stage.inference_done("w0", 100);
  EXPECT_EQ(stage.stage_of(job0), JobStage::postprocessing);
  const auto posts = stage.sent(FrameType::postprocessing_request);
  ASSERT_EQ(posts.size(), 1u);
  ASSERT_EQ(posts[0].effect.attachments.size(), 1u);
  EXPECT_EQ(posts[0].effect.attachments[0].handle, 100u);
  stage.postprocessing_done("w0", 101);
  EXPECT_EQ(stage.stage_of(job0), JobStage::storing);
  EXPECT_TRUE(stage.all<out::ReplyImages>().empty());
  stage.stored();
  EXPECT_EQ(stage.stage_of(job0), JobStage::completed);
  const auto replies = stage.all<out::ReplyImages>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].reply, 5u);
  EXPECT_EQ(replies[0].images.size(), 1u);
  EXPECT_EQ(replies[0].images[0].seed, 7u);
  stage.stored();  // said twice
  EXPECT_EQ(stage.all<out::ReplyImages>().size(), 1u);
}

// §1.6 "Output format validation and conversion": what the worker is told, and what it must deliver.
TEST(Design_1_6_output_format, what_the_request_asks_for_is_ordered_and_another_format_is_not_stored) {
  for (const std::string delivered : {"jpeg", "png"}) {
    Stage stage(settings_of(1));
    stage.ready();
    stage.generate_with(5, {.output_format = "jpeg", .output_quality = "medium"});
    stage.until_inferring();
    stage.inference_done("w0", 100);
    const auto posts = stage.sent(FrameType::postprocessing_request);
    ASSERT_EQ(posts.size(), 1u);
    const auto ordered = json::from_text<PostprocessingRequest>(posts[0].envelope.body.text);
    ASSERT_TRUE(ordered.has_value());
    EXPECT_EQ(ordered->output_requirements.format, "jpeg");
    EXPECT_EQ(ordered->output_requirements.quality, "medium");
    stage.postprocessing_done("w0", 101, delivered);
    if (delivered == "jpeg") {
      stage.stored();
      ASSERT_EQ(stage.all<out::ReplyImages>().size(), 1u);
      EXPECT_EQ(stage.all<out::ReplyImages>()[0].images[0].image.format, "jpeg");
    } else {
      EXPECT_TRUE(stage.all<out::StorePixels>().empty());
      EXPECT_EQ(stage.tables().processing.jobs.at(job0).failure->message,
                "the worker delivered png; the request asks for jpeg");
    }
  }
}

TEST(Design_1_6_output_format, an_impossible_one_is_refused_before_anything_is_accepted) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate_with(5, {.output_format = "jpeg", .output_quality = "lossless"});
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 400);
  EXPECT_NE(replies[0].body.find("\"param\":\"output_quality\""), std::string::npos) << replies[0].body;
  EXPECT_EQ(stage.tables().processing.requests.size(), 0u);
}

/// The one answer of the stage.
std::string body_of_reply(const Stage& stage, ReplyId id) {
  for (const out::Reply& each : stage.all<out::Reply>()) {
    if (each.reply == id) return cat(each.status, " ", each.body);
  }
  return "";
}

/// A stage with a LoRA of the same architecture, one of another, and a safety classifier beside "tiny".
class Companions : public Stage {
 public:
  Companions() : Stage(settings_of(1)) {
    ready();
    in::ModelsScanned scan;
    const auto add = [&](const std::string& id, model::Kind kind, const std::string& architecture) {
      in::ScannedModel scanned;
      scanned.model.model_id = ModelId(id);
      scanned.model.kind = kind;
      scanned.model.availability = model::Availability::available;
      scanned.model.facts = model::Facts{architecture, {}, "1", {}, kind == model::Kind::lora};
      scan.models.push_back(scanned);
    };
    in::ScannedModel base;
    base.model = tables().model.models.at("tiny");
    for (std::size_t i = 0; i < base.model.components.size(); ++i) {
      base.layouts.push_back(std::make_shared<const model::SegmentLayout>());
    }
    scan.models.push_back(base);
    add("style", model::Kind::lora, "sdxl");
    add("style-15", model::Kind::lora, "sd15");
    add("safety", model::Kind::safety_classifier, "vit");
    input(scan);
  }
};

// §1.5 "Inference type capability tracking and validation".
TEST(Design_1_5_capabilities, a_type_that_the_model_cannot_do_is_refused_with_what_it_can) {
  Companions stage;
  stage.generate_with(90, {.inference_type = "image_to_image"});
  EXPECT_NE(body_of_reply(stage, 90).find(R"(400 )"), std::string::npos);
  EXPECT_NE(body_of_reply(stage, 90).find(R"(inference_type is \"image_to_image\"; model tiny can do text_to_image)"),
            std::string::npos)
      << body_of_reply(stage, 90);
  stage.generate_with(91, {.model = "safety"});
  EXPECT_NE(body_of_reply(stage, 91).find("is no image model but safety_classifier; it does safety_check"),
            std::string::npos)
      << body_of_reply(stage, 91);
  stage.generate_with(92, {.model = "style"});
  EXPECT_NE(body_of_reply(stage, 92).find("is no image model but lora; it goes with a base model"), std::string::npos)
      << body_of_reply(stage, 92);
  EXPECT_EQ(stage.tables().processing.requests.size(), 0u);
  stage.generate_with(93, {.inference_type = "text_to_image"}, false);
  EXPECT_TRUE(body_of_reply(stage, 93).starts_with("202 "));
}

// §1.5 "Model compatibility verification for inference requests".
TEST(Design_1_5_capabilities, companions_are_named_one_by_one_when_they_cannot_work_with_the_base) {
  Companions stage;
  const auto refused = [&](ReplyId id, GenerateBody body) {
    stage.generate_with(id, std::move(body));
    return body_of_reply(stage, id);
  };
  const std::vector<ModelId> other{ModelId("style-15")};
  EXPECT_NE(refused(90, {.lora_models = other}).find("lora style-15 is for sd15, tiny is sdxl"), std::string::npos)
      << body_of_reply(stage, 90);
  EXPECT_TRUE(body_of_reply(stage, 90).starts_with("400 "));
  EXPECT_NE(body_of_reply(stage, 90).find("\"param\":\"lora_models/0\""), std::string::npos);
  EXPECT_NE(refused(91, {.refiner_model = ModelId("safety")}).find("safety is safety_classifier, no refiner"),
            std::string::npos)
      << body_of_reply(stage, 91);
  EXPECT_TRUE(refused(92, {.refiner_model = ModelId("none")}).starts_with("404 ")) << body_of_reply(stage, 92);
  const std::vector<ModelId> fitting{ModelId("style")};
  EXPECT_TRUE(refused(93, {.lora_models = fitting}).starts_with("501 ")) << body_of_reply(stage, 93);
  EXPECT_NE(body_of_reply(stage, 93).find("it fits tiny, and no worker of this version runs a lora"),
            std::string::npos);
  EXPECT_EQ(stage.tables().processing.requests.size(), 0u);

  stage.input(in::View{94, "models/tiny"});
  const std::string view = body_of_reply(stage, 94);
  EXPECT_NE(view.find(R"("inference_types":["text_to_image"])"), std::string::npos) << view;
  EXPECT_NE(view.find(R"({"role":"lora","model_id":"style","fits":true)"), std::string::npos) << view;
  EXPECT_NE(view.find(R"({"role":"lora","model_id":"style-15","fits":false)"), std::string::npos) << view;
}

// §1.3 and §1.5 "Model-specific configuration and parameter tuning".
TEST(Design_1_5_tuning, what_is_set_for_a_model_is_the_default_and_the_limit_and_reaches_the_worker) {
  Stage stage(settings_of(1));
  stage.ready();
  const auto set = [&](ReplyId id, const std::string& body, bool whole = false, const std::string& model = "tiny") {
    stage.input(in::Set{id, cat("models/", model, "/config"), whole, body});
    return body_of_reply(stage, id);
  };
  EXPECT_EQ(set(90, R"({"scheduler":"ddim","default_steps":12,"max_steps":30})"),
            R"(200 {"scheduler":"ddim","default_steps":12,"max_steps":30})");
  EXPECT_EQ(set(91, R"({"default_guidance_scale":7.5})"),
            R"(200 {"scheduler":"ddim","default_steps":12,"default_guidance_scale":7.5,"max_steps":30})");
  ReplyId next_reply = 200;
  for (const auto& [body, words] :
       {std::pair(R"({"scheduler":"lcm"})", "euler_ancestral_discrete"), std::pair(R"({"max_steps":0})", "1 to 500"),
        std::pair(R"({"default_steps":31})", "default_steps is 31; it must be 1 to 30"),
        std::pair(R"({"default_guidance_scale":101})", "0 to 100"), std::pair(R"({"colour":1})", "colour")}) {
    const std::string answer = set(next_reply++, body);
    EXPECT_TRUE(answer.starts_with("400 ") && answer.find(words) != std::string::npos) << answer;
  }
  EXPECT_TRUE(set(93, "{}", false, "none").starts_with("404 "));
  EXPECT_EQ(stage.tables().inference.tunings.at("tiny").default_steps, 12u);

  stage.generate_with(94, {.steps = 31});
  EXPECT_NE(body_of_reply(stage, 94).find("steps is 31; it must be 1 to 30 with model tiny"), std::string::npos)
      << body_of_reply(stage, 94);
  stage.generate(95, false);
  stage.until_inferring();
  const auto request =
      json::from_text<InferenceRequest>(stage.sent(FrameType::inference_request).back().envelope.body.text);
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->inference_parameters.steps, 12u);
  EXPECT_EQ(request->inference_parameters.guidance_scale, 7.5);
  EXPECT_EQ(request->inference_parameters.scheduler, Scheduler::ddim);

  // PUT is the whole: the rest is the default again. It is journaled, and shown with the model.
  EXPECT_EQ(set(96, R"({"max_steps":10})", true), R"(200 {"max_steps":10})");
  Stage later(settings_of(1), stage.journal);
  EXPECT_EQ(later.tables().inference.tunings.at("tiny").max_steps, 10u);
  stage.input(in::View{97, "models/tiny/config"});
  EXPECT_EQ(body_of_reply(stage, 97), R"(200 {"max_steps":10})");
  stage.input(in::View{98, "models/tiny"});
  EXPECT_NE(body_of_reply(stage, 98).find(R"("config":{"max_steps":10})"), std::string::npos);
}

// §1.2 "Inference memory usage patterns and prediction": a run that would not fit is not tried again.
TEST(Design_1_2_prediction, a_run_that_would_exceed_the_device_with_what_it_took_before_is_refused) {
  for (const Bytes peak : {1000_MiB, 1200_MiB}) {  // the device has 1 GiB, the model 150 MiB
    Stage stage(settings_of(1));
    stage.ready();
    stage.generate(5, false);
    stage.until_inferring();
    const auto request = stage.sent(FrameType::inference_request).back();
    InferenceCompleted done;
    done.request_id = request.envelope.op_id;
    done.result = Stage::picture("rgb8");
    done.result_metadata.execution_time = 2;
    done.result_metadata.final_vram_usage = SizeText::of(peak);
    const Bytes told = done.result_metadata.final_vram_usage.bytes().value();  // in tenths of its unit
    stage.say("w0", FrameType::inference_completed, done, request.envelope.attempt, done.request_id, {100});
    stage.postprocessing_done("w0", 101);
    stage.stored();
    stage.input(in::View{90, "models/tiny"});
    const std::string view = body_of_reply(stage, 90);
    EXPECT_NE(view.find(R"("costs":[{"operation":"inference","size":"512x512","runs":1,"seconds_mean":2)"),
              std::string::npos)
        << view;
    EXPECT_NE(view.find(cat(R"("predicted_beside_models":)", (told - 150_MiB).value)), std::string::npos) << view;

    stage.generate(6, false);
    const std::string second = "req_000001_000002/00";
    if (peak < 1_GiB) {
      EXPECT_EQ(stage.stage_of(second), JobStage::inferring);
    } else {
      ASSERT_EQ(stage.stage_of(second), JobStage::failed);
      EXPECT_NE(stage.tables().processing.jobs.at(second).failure->message.find("beside its models before"),
                std::string::npos);
      stage.generate_with(7, {.size = "256x256"}, false);  // of which nothing is known
      EXPECT_EQ(stage.stage_of("req_000001_000003/00"), JobStage::inferring);
    }
  }
}

// §1.2: what is granted to others meanwhile is waited for, and the image says so.
TEST(Design_1_2_prediction, a_run_waits_until_what_it_took_before_is_free) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(5, false);
  stage.until_inferring();
  const auto request = stage.sent(FrameType::inference_request).back();
  stage.say("w0", FrameType::memory_allocation_request,
            MemoryAllocationRequest{"m1", 100_MiB, "inference", AllocationPriority::normal, DurationText{"5min"}}, 0,
            "m1");
  InferenceCompleted done;
  done.request_id = request.envelope.op_id;
  done.result = Stage::picture("rgb8");
  done.result_metadata.final_vram_usage = SizeText::of(1020_MiB);  // 770 MiB beside the model and the grant
  stage.say("w0", FrameType::inference_completed, done, request.envelope.attempt, done.request_id, {100});
  stage.postprocessing_done("w0", 101);
  stage.stored();
  stage.say("w0", FrameType::memory_allocation_request,
            MemoryAllocationRequest{"m2", 50_MiB, "inference", AllocationPriority::normal, DurationText{"5min"}}, 0,
            "m2");
  stage.generate(6, false);
  const std::string second = "req_000001_000002/00";
  EXPECT_EQ(stage.stage_of(second), JobStage::queued);
  stage.input(in::View{90, "requests/req_000001_000002"});
  EXPECT_NE(body_of_reply(stage, 90).find("a run of this size takes 770MB beside its models, and gpu_0 has 724MB free"),
            std::string::npos)
      << body_of_reply(stage, 90);
  const auto answer = stage.sent(FrameType::request_answer).back().body<RequestAnswer>();
  ASSERT_TRUE(answer.reservation.has_value());
  stage.say("w0", FrameType::reservation_update, ReservationUpdate{answer.reservation->allocation_id, std::nullopt});
  EXPECT_EQ(stage.stage_of(second), JobStage::inferring);
}

// §1.4 "Operation-specific resource usage", §1.6 "Model performance tracking": by model and operation.
TEST(Design_1_4_operation_costs, times_and_peaks_are_kept_by_model_and_operation) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(5, false);
  stage.until_inferring();
  stage.inference_done("w0", 100);
  const auto request = stage.sent(FrameType::postprocessing_request);
  ASSERT_FALSE(request.empty());
  PostprocessingCompleted done;
  done.request_id = request.back().envelope.op_id;
  done.output = Stage::picture("png");
  done.usage = {{"safety_check", tiny, 0.5, 3_MiB}, {"safety_check", tiny, 1.5, 2_MiB}};
  stage.say("w0", FrameType::postprocessing_completed, done, request.back().envelope.attempt, done.request_id, {101});
  stage.input(in::View{90, "models/tiny"});
  EXPECT_NE(body_of_reply(stage, 90).find(
                R"({"operation":"safety_check","size":"","runs":2,"seconds_mean":1.0,"seconds_last":1.5,)"
                R"("peak_max":3145728)"),
            std::string::npos)
      << body_of_reply(stage, 90);
}

TEST(Design_accept, the_answer_waits_for_the_disk) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.manual = true;
  stage.generate(1, false);
  stage.release();
  EXPECT_TRUE(stage.all<out::Reply>().empty());
  stage.sync();
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 202);
}

// Same commits, same state: the digest of a replay equals the digest of the life, at every rev.
TEST(Design_accept, a_replay_of_any_prefix_has_the_digest_of_that_instant) {
  Stage stage(settings_of(1));
  std::map<std::size_t, std::string> digests;
  const auto mark = [&] { digests[stage.journal.size()] = stage.machine.digest(); };
  stage.start();
  mark();
  stage.scan();
  mark();
  stage.join("w0");
  mark();
  stage.generate(1, true, 2);
  mark();
  stage.until_inferring();
  mark();
  stage.inference_done("w0", 100);
  mark();
  stage.postprocessing_done("w0", 101);
  mark();
  stage.stored();
  mark();
  ASSERT_GE(digests.size(), 8u);
  std::set<std::string> different;
  for (const auto& [length, digest] : digests) {
    const std::vector<Record> prefix(stage.journal.begin(),
                                     stage.journal.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(Stage(settings_of(1), prefix).machine.digest(), digest) << length;
    different.insert(digest);
  }
  EXPECT_EQ(different.size(), digests.size());
}

// A snapshot is the tables at a rev: rows and the records after them give the same state as all records.
TEST(Design_accept, a_snapshot_and_the_records_after_it_have_the_same_digest) {
  Stage stage(settings_of(1));
  stage.ready();
  Recovered from_snapshot;
  from_snapshot.snapshot_at = Lsn{stage.journal.size()};
  stage.machine.begin_snapshot();
  from_snapshot.rows = stage.machine.take_snapshot_rows(1000, 1 << 20);
  ASSERT_EQ(stage.machine.snapshot_rows_left(), 0u);
  ASSERT_FALSE(from_snapshot.rows.empty());
  stage.generate(1);
  stage.until_inferring();
  from_snapshot.records.assign(stage.journal.begin() + static_cast<std::ptrdiff_t>(from_snapshot.snapshot_at.value),
                               stage.journal.end());
  ASSERT_FALSE(from_snapshot.records.empty());
  Orchestrator again(settings_of(1));
  const auto last = again.recover(from_snapshot);
  ASSERT_TRUE(last.has_value()) << last.error().message;
  EXPECT_EQ(last->value, stage.journal.size());
  EXPECT_EQ(again.digest(), stage.machine.digest());
}

// A crash at any record: the accepted request is there, and what was in flight starts over, whatever stage it was in.
TEST(Design_accept, a_crash_at_any_record_loses_nothing_that_was_accepted) {
  Stage stage(settings_of(1));
  stage.ready();
  const std::size_t before = stage.journal.size();
  stage.generate(1);
  const std::size_t accepted = stage.journal.size();
  ASSERT_GT(accepted, before);
  stage.until_inferring();
  stage.finish_image();
  std::set<JobStage> crashed_in;
  for (std::size_t length = before + 1; length <= stage.journal.size(); ++length) {
    const std::vector<Record> prefix(stage.journal.begin(),
                                     stage.journal.begin() + static_cast<std::ptrdiff_t>(length));
    Stage next(settings_of(1), prefix);
    ASSERT_TRUE(next.tables().processing.jobs.contains(job0)) << length;
    const JobStage at = next.stage_of(job0);
    crashed_in.insert(at);
    next.start();
    const bool on_its_worker = at == JobStage::inferring || at == JobStage::postprocessing;  // which may come back
    EXPECT_EQ(next.stage_of(job0), processing::is_terminal(at) || on_its_worker ? at : JobStage::queued) << length;
    EXPECT_EQ(next.all<out::ProveGone>().size(), 1u);
    next.scan();
    next.input(in::WorkerGone{WorkerId("w0"), Incarnation{1}, "proven gone by its lock"});
    EXPECT_EQ(next.stage_of(job0), processing::is_terminal(at) ? at : JobStage::queued) << length;
    EXPECT_EQ(next.tables().processing.jobs.at(job0).worker_id, WorkerId()) << length;
    EXPECT_EQ(next.tables().processing.jobs.at(job0).deaths, 0u);  // the crash was ours
    next.expect_no_trace_of_a_load();
    if (processing::is_terminal(at)) continue;
    next.join("w0");
    next.until_inferring();
    next.finish_image();
    EXPECT_EQ(next.stage_of(job0), JobStage::completed) << length;
  }
  EXPECT_EQ(crashed_in, (std::set<JobStage>{JobStage::queued, JobStage::inferring, JobStage::generated,
                                            JobStage::postprocessing, JobStage::storing, JobStage::completed}));
}

// The third death on one job sets it aside; the next job goes on.
TEST(Design_accept, a_poisonous_job_is_set_aside_and_the_others_go_on) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1, true, 2);
  for (std::uint32_t death = 1; death <= 3; ++death) {
    stage.until_inferring();
    ASSERT_EQ(stage.stage_of(job0), JobStage::inferring) << death;
    stage.die("w0");
    EXPECT_EQ(stage.tables().processing.jobs.at(job0).deaths, death);
    stage.expect_no_trace_of_a_load();
    stage.join("w0");
  }
  EXPECT_EQ(stage.stage_of(job0), JobStage::set_aside);
  const auto failure = stage.tables().processing.jobs.at(job0).failure;
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code, "poisonous");
  EXPECT_NE(failure->message.find("signal 11"), std::string::npos) << failure->message;
  stage.until_inferring();
  EXPECT_EQ(stage.stage_of(job1), JobStage::inferring);
  EXPECT_EQ(stage.tables().processing.jobs.at(job1).deaths, 0u);
  stage.finish_image();
  EXPECT_EQ(stage.stage_of(job1), JobStage::completed);
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 500);
  EXPECT_NE(replies[0].body.find("poisonous"), std::string::npos) << replies[0].body;
}

// Design §2: the attempt rises with the cancel; a late result is dropped and its descriptor released.
TEST(Design_accept, the_late_result_of_a_cancelled_job_is_dropped_with_its_descriptor) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.input(in::Cancel{2, RequestId("req_000001_000001")});
  EXPECT_EQ(stage.stage_of(job0), JobStage::failed);
  const auto cancels = stage.sent(FrameType::task_cancel);
  ASSERT_EQ(cancels.size(), 1u);
  EXPECT_EQ(cancels[0].effect.frame.header.urgency, Urgency::p0_critical);
  EXPECT_EQ(cancels[0].envelope.op_id, stage.sent(FrameType::inference_request).back().envelope.op_id);
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].status, 200);
  EXPECT_EQ(replies[1].status, 409);
  EXPECT_NE(replies[1].body.find("cancelled"), std::string::npos);
  const Rev rev = stage.machine.rev();
  stage.inference_done("w0", 55);
  const auto drops = stage.all<out::DropHandle>();
  ASSERT_EQ(drops.size(), 1u);
  EXPECT_EQ(drops[0].handle, 55u);
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_EQ(stage.stage_of(job0), JobStage::failed);
  EXPECT_TRUE(stage.machine.live().pixels.empty());
  // The worker is free again.
  stage.generate(3);
  EXPECT_EQ(stage.sent(FrameType::inference_request).size(), 2u);
}

// §3.4: what was cancelled goes on to its next step, and the worker that reports it is alive.
TEST(Design_accept, a_report_of_a_cancelled_run_is_progress_of_its_worker) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  const std::string run = stage.sent(FrameType::inference_request).back().envelope.op_id;
  stage.input(in::Cancel{2, RequestId("req_000001_000001")});
  const auto armed = [&] {
    return std::ranges::count(stage.all<out::ArmTimer>(), "progress:w0", &out::ArmTimer::name);
  };
  const auto before = armed();
  InferenceProgress progress;
  progress.request_id = run;
  progress.execution_metrics.total_steps = 4;
  stage.say("w0", FrameType::inference_progress, progress, 1, run);
  EXPECT_EQ(armed(), before + 1);
  progress.request_id = "inf:req_000001_000009/00:1";
  stage.say("w0", FrameType::inference_progress, progress, 1, progress.request_id);
  EXPECT_EQ(armed(), before + 1) << "of what it does not run";
}

TEST(Design_accept, a_cancelled_queued_job_is_never_dispatched) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.generate(2);
  stage.input(in::Cancel{3, RequestId("req_000001_000002")});
  stage.until_inferring();
  stage.finish_image();
  EXPECT_EQ(stage.stage_of(job0), JobStage::completed);
  EXPECT_EQ(stage.sent(FrameType::inference_request).size(), 1u);
}

TEST(Design_accept, an_ended_request_cannot_be_cancelled) {
  Stage stage(settings_of(1));
  stage.ready();
  stage.generate(1);
  stage.until_inferring();
  stage.finish_image();
  const Rev rev = stage.machine.rev();
  stage.input(in::Cancel{2, RequestId("req_000001_000001")});
  stage.input(in::Cancel{3, RequestId("nobody")});
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].status, 409);
  EXPECT_EQ(replies[1].status, 404);
  EXPECT_EQ(stage.machine.rev(), rev);
}

TEST(Design_accept, an_unknown_model_is_not_found_with_the_list_of_known_ones) {
  Stage stage(settings_of(1));
  stage.ready();
  const Rev rev = stage.machine.rev();
  GenerateBody body;
  body.prompt = "x";
  body.model = "nope";
  stage.input(in::Generate{1, body, 7, true});
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 404);
  EXPECT_NE(replies[0].body.find("nope"), std::string::npos) << replies[0].body;
  EXPECT_NE(replies[0].body.find("registered: tiny"), std::string::npos) << replies[0].body;
  EXPECT_EQ(stage.machine.rev(), rev);
}

TEST(Design_accept, a_full_queue_refuses_with_429_and_keeps_what_it_has) {
  Settings settings = settings_of(1);
  settings.accept.open_jobs_max = 2;
  Stage stage(settings);
  stage.ready();
  stage.generate(1, false, 2);
  const Rev rev = stage.machine.rev();
  stage.generate(2, false, 1);
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].status, 202);
  EXPECT_EQ(replies[1].status, 429);
  EXPECT_NE(replies[1].body.find("the limit is 2"), std::string::npos) << replies[1].body;
  EXPECT_EQ(stage.machine.rev(), rev);
  EXPECT_EQ(stage.tables().processing.jobs.size(), 2u);
}

TEST(Design_accept, a_model_larger_than_every_device_fails_at_once_instead_of_waiting_for_ever) {
  Settings settings = settings_of(1);
  settings.workers[0].memory_budget = 100_MiB;
  Stage stage(settings);
  stage.ready();
  stage.generate(1);
  const auto replies = stage.all<out::Reply>();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].status, 400);
  EXPECT_NE(replies[0].body.find("the largest has 100MB"), std::string::npos) << replies[0].body;
}

}  // namespace
}  // namespace lockstep::design
