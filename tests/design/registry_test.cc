// §1.3, §2.3: the registry follows the disk; what a person asks of a model goes the way of every load.

#include "tests/design/fixture.h"

namespace lockstep::design {
namespace {

class Design_1_3_registry : public testing::Test {
 protected:
  Design_1_3_registry() : stage(settings_of(1)) { stage.ready(); }

  void load(ReplyId reply) { stage.input(in::LoadModel{reply, tiny, {}, true}); }
  void until_loaded() {
    stage.fill_segments();
    const TransactionId transaction = stage.prepared();
    stage.vote("w0", transaction, Vote::vote_commit);
    stage.loaded("w0", transaction);
  }
  std::optional<out::Reply> reply(ReplyId id) const {
    for (const out::Reply& each : stage.all<out::Reply>()) {
      if (each.reply == id) return each;
    }
    return std::nullopt;
  }
  void released() { stage.say("w0", FrameType::model_released, ModelReleased{tiny, {}}, 0, "release:tiny"); }
  /// The folder as it was, with other files of the model, or without it.
  void scan_with(std::optional<std::int64_t> modified) {
    in::ModelsScanned scan;
    if (modified) {
      in::ScannedModel scanned;
      scanned.model = stage.tables().model.models.at("tiny");
      for (model::Component& each : scanned.model.components) {
        each.files = {{cat("/models/tiny/", each.name), 1_MiB, *modified}};
        each.sha256.clear();
        scanned.layouts.push_back(std::make_shared<const model::SegmentLayout>());
      }
      scan.models.push_back(scanned);
    }
    stage.input(scan);
  }

  Stage stage;
};

// §3.2: a load that a person asks for is the same transaction, and is answered when the model is there.
TEST_F(Design_1_3_registry, a_load_is_answered_when_it_is_loaded) {
  load(9);
  EXPECT_FALSE(reply(9).has_value());
  until_loaded();
  ASSERT_TRUE(reply(9).has_value());
  EXPECT_EQ(reply(9)->status, 200);
  EXPECT_NE(reply(9)->body.find("\"state\":\"loaded\""), std::string::npos);
  stage.expect_one_load_held();
  EXPECT_TRUE(stage.machine.live().orders.empty());
}

// §1.3 "Model loading priority and queue management": the order of what is asked, and what the worker is told of it.
TEST_F(Design_1_3_registry, loads_are_taken_by_priority_and_then_by_arrival) {
  const auto order = [&](const char* model, AllocationPriority priority) {
    stage.input(in::LoadModel{1, ModelId(model), {}, false, priority});
  };
  std::vector<ModelId> models{tiny};
  for (int i = 0; i < 12; ++i) models.emplace_back(cat("m", i));
  stage.scan(models);
  order("tiny", AllocationPriority::critical);
  stage.fill_segments();  // the worker has a load now: what comes waits
  for (int i = 0; i < 11; ++i)
    order(cat("m", i).c_str(), i == 9 ? AllocationPriority::low : AllocationPriority::normal);
  order("m11", AllocationPriority::high);
  stage.input(in::View{2, "loads"});
  const std::string queue = stage.all<out::Reply>().back().body;
  const auto place = [&](const char* model) { return queue.find(cat("\"model_id\":\"", model, "\"")); };
  EXPECT_NE(queue.find(R"("model_id":"tiny","worker_id":"","action":"load","priority":"critical","state":"loading")"),
            std::string::npos)
      << queue;
  EXPECT_LT(place("m11"), place("m0"));
  EXPECT_LT(place("m2"), place("m10"));  // by number, not by the letters of its name
  EXPECT_LT(place("m10"), place("m9"));
  EXPECT_NE(place("m9"), std::string::npos);

  for (const char* model : {"tiny", "m11", "m0", "m1"}) {
    stage.fill_segments();
    const TransactionId transaction = stage.prepared();
    stage.vote("w0", transaction, Vote::vote_commit);
    const auto told = stage.sent(FrameType::model_load_request).back().body<ModelLoadRequest>();
    EXPECT_EQ(told.model_id, ModelId(model));
    EXPECT_EQ(told.loading_priority, model == std::string("tiny")  ? AllocationPriority::critical
                                     : model == std::string("m11") ? AllocationPriority::high
                                                                   : AllocationPriority::normal);
    stage.loaded("w0", transaction, ModelId(model));
  }
}

// §1.2, §1.3: while memory is short, what nobody waits for urgently does not begin; it is there to see, and goes on
// later.
TEST_F(Design_1_3_registry, only_critical_loads_begin_while_memory_is_short) {
  const auto sample = [&](std::uint64_t free) {
    stage.input(in::SystemMemory{1000_MiB, Bytes{free << 20}, {}, {}, 0});
  };
  stage.scan({tiny, ModelId("urgent")});
  sample(80);
  load(9);
  EXPECT_TRUE(stage.all<out::FillSegment>().empty());
  stage.input(in::View{2, "loads"});
  EXPECT_NE(reply(2)->body.find(R"("state":"held: memory is short")"), std::string::npos) << reply(2)->body;
  stage.input(in::LoadModel{10, ModelId("urgent"), {}, true, AllocationPriority::critical});
  ASSERT_FALSE(stage.all<out::FillSegment>().empty());
  EXPECT_EQ(stage.all<out::FillSegment>().front().model_id, ModelId("urgent"));
  stage.fill_segments();
  const TransactionId transaction = stage.prepared();
  stage.vote("w0", transaction, Vote::vote_commit);
  stage.loaded("w0", transaction, ModelId("urgent"));
  EXPECT_EQ(reply(10)->status, 200);
  EXPECT_FALSE(reply(9).has_value());
  sample(500);
  until_loaded();
  EXPECT_EQ(reply(9)->status, 200);
}

// §1.3 "Model usage tracking": what was made of a model outlives its loads and a restart, and goes with the model.
TEST_F(Design_1_3_registry, loads_and_uses_of_a_model_are_counted_and_kept) {
  EXPECT_EQ(stage.tables().model.usages.find("tiny"), nullptr);
  load(9);
  until_loaded();
  const model::Usage loaded = stage.tables().model.usages.at("tiny");
  EXPECT_EQ(loaded.loads, 1u);
  EXPECT_EQ(loaded.uses, 0u);
  EXPECT_EQ(loaded.last_loaded, stage.wall());
  EXPECT_FALSE(loaded.last_used.has_value());
  stage.generate(1);
  stage.input(in::UnloadModel{10, tiny, {}, true});
  const model::Usage used = stage.tables().model.usages.at("tiny");
  EXPECT_EQ(used.uses, 1u);
  EXPECT_EQ(used.last_used, stage.wall());
  stage.input(in::View{11, "models/tiny"});
  EXPECT_NE(reply(11)->body.find(cat("\"usage\":{\"loads\":1,\"uses\":1,\"last_loaded\":\"", to_rfc3339(stage.wall()))),
            std::string::npos)
      << reply(11)->body;
}

TEST_F(Design_1_3_registry, a_load_that_the_worker_refuses_is_answered_with_its_reason) {
  load(9);
  stage.fill_segments();
  stage.vote("w0", stage.prepared(), Vote::vote_abort, "no room");
  ASSERT_TRUE(reply(9).has_value());
  EXPECT_EQ(reply(9)->status, 429);
  EXPECT_NE(reply(9)->body.find("no room"), std::string::npos);
  stage.expect_no_trace_of_a_load();
}

TEST_F(Design_1_3_registry, a_load_gives_up_when_its_worker_keeps_ending) {
  load(9);
  for (int i = 0; i < 3; ++i) {
    stage.fill_segments();
    stage.vote("w0", stage.prepared(), Vote::vote_commit);
    stage.die("w0");
    stage.now += seconds(60);
    stage.input(in::TimerFired{"restart:w0"});
    stage.join("w0");
  }
  ASSERT_TRUE(reply(9).has_value());
  EXPECT_EQ(reply(9)->status, 503);
  stage.expect_no_trace_of_a_load();
}

// Unloaded means released: proven, not asked for.
TEST_F(Design_1_3_registry, an_unload_is_answered_when_the_memory_is_proven_free) {
  load(9);
  until_loaded();
  stage.input(in::UnloadModel{10, tiny, {}, true});
  ASSERT_EQ(stage.sent(FrameType::model_release).size(), 1u);
  EXPECT_FALSE(reply(10).has_value());
  released();
  ASSERT_TRUE(reply(10).has_value());
  EXPECT_EQ(reply(10)->status, 200);
  stage.expect_no_trace_of_a_load();
}

TEST_F(Design_1_3_registry, a_client_that_went_away_loses_the_answer_only) {
  load(9);
  stage.input(in::ReplyGone{9});
  until_loaded();
  EXPECT_FALSE(reply(9).has_value());
  stage.expect_one_load_held();
}

TEST_F(Design_1_3_registry, copies_of_changed_files_go_and_the_next_load_reads_the_new_ones) {
  load(9);
  until_loaded();
  scan_with(7);
  EXPECT_EQ(stage.sent(FrameType::model_release).size(), 1u);
  EXPECT_EQ(stage.all<out::DropSegment>().size(), 2u);
  EXPECT_TRUE(stage.machine.live().segments.empty());
  released();
  const std::size_t fills = stage.all<out::FillSegment>().size();
  load(10);
  until_loaded();
  EXPECT_EQ(stage.all<out::FillSegment>().size(), fills + 2);
  EXPECT_EQ(reply(10)->status, 200);
}

TEST_F(Design_1_3_registry, a_segment_filled_from_old_files_is_not_used) {
  load(9);
  scan_with(7);  // the first component is on its way
  stage.fill_segments();
  EXPECT_TRUE(stage.sent(FrameType::transaction_prepare).empty());
  EXPECT_EQ(stage.tables().model.models.at("tiny").availability, model::Availability::available);
  stage.fill_segments();
  until_loaded();
  EXPECT_EQ(reply(9)->status, 200);
}

TEST_F(Design_1_3_registry, a_model_that_is_gone_is_unloaded_and_refused) {
  load(9);
  until_loaded();
  scan_with(std::nullopt);
  EXPECT_FALSE(stage.tables().model.models.contains("tiny"));
  EXPECT_EQ(stage.sent(FrameType::model_release).size(), 1u);
  released();
  stage.expect_no_trace_of_a_load();
  load(10);
  EXPECT_EQ(reply(10)->status, 404);
}

TEST_F(Design_1_3_registry, the_usage_of_a_model_goes_with_it) {
  load(9);
  until_loaded();
  scan_with({});
  EXPECT_EQ(stage.tables().model.models.size(), 0u);
  EXPECT_EQ(stage.tables().model.usages.size(), 0u);
}

TEST_F(Design_1_3_registry, a_file_that_is_being_written_does_not_make_its_model_gone) {
  in::ModelsScanned scan;
  scan.unsettled = {tiny};
  stage.input(scan);
  EXPECT_TRUE(stage.tables().model.models.contains("tiny"));
  scan.unsettled.clear();
  scan.problem = "the folder cannot be read";
  stage.input(scan);
  EXPECT_TRUE(stage.tables().model.models.contains("tiny"));
}

TEST_F(Design_1_3_registry, a_verification_compares_and_what_it_found_outlives_a_scan) {
  scan_with(7);
  const auto verify = [&](ReplyId id, char digit) {
    stage.input(in::VerifyModel{id, tiny, true});
    for (const char* component : {"unet", "vae"}) {
      stage.input(in::FilesHashed{tiny, component, std::string(64, digit)});
    }
  };
  verify(11, 'a');
  EXPECT_EQ(reply(11)->status, 200);
  verify(12, 'b');
  EXPECT_EQ(reply(12)->status, 500);
  EXPECT_EQ(stage.tables().model.models.at("tiny").availability, model::Availability::broken);
  in::ScannedModel scanned;
  scanned.model = stage.tables().model.models.at("tiny");
  scanned.model.availability = model::Availability::available;
  scanned.layouts.assign(2, std::make_shared<const model::SegmentLayout>());
  stage.input(in::ModelsScanned{{scanned}, "", {}});
  EXPECT_EQ(stage.tables().model.models.at("tiny").availability, model::Availability::broken);
  verify(13, 'a');
  EXPECT_EQ(reply(13)->status, 200);
  EXPECT_EQ(stage.tables().model.models.at("tiny").availability, model::Availability::available);
}

TEST_F(Design_1_3_registry, a_loaded_model_is_removed_only_by_force) {
  load(9);
  until_loaded();
  stage.input(in::RemoveModel{10, tiny, false});
  EXPECT_EQ(reply(10)->status, 409);
  EXPECT_TRUE(stage.all<out::RemoveFiles>().empty());
  stage.input(in::RemoveModel{11, tiny, true});
  ASSERT_EQ(stage.all<out::RemoveFiles>().size(), 1u);
  EXPECT_EQ(stage.all<out::RemoveFiles>()[0].path, "/models/tiny");
}

}  // namespace
}  // namespace lockstep::design
