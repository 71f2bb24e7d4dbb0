// §1.3 "Model component caching (tokenizers, configs, metadata)": the small files of a model are one component more, in
// the same cache and by the same rules; a single file borrows another's.

#include "tests/design/fixture.h"

#include "operations/coordination.h"
#include "operations/sessions.h"

namespace lockstep::design {
namespace {

const ModelId single("single");

class Design_1_3_configuration : public testing::Test {
 protected:
  explicit Design_1_3_configuration(Settings settings = settings_of(2)) : stage(std::move(settings)) {
    stage.start();
    scan();
    for (const out::SpawnWorker& each : stage.all<out::SpawnWorker>()) stage.join(each.worker.worker_id.str());
  }

  /// A folder of weights and configuration, and a checkpoint that borrows the configuration.
  static std::vector<in::ScannedModel> models() {
    in::ScannedModel folder = Stage::scanned(tiny);
    model::Component& configuration = folder.model.components.emplace_back();
    configuration.name = "configuration";
    configuration.files = {{"/models/tiny/model_index.json", 1_KiB, 1}};
    configuration.segment_bytes = 5_MiB;
    folder.layouts.push_back(std::make_shared<const model::SegmentLayout>());
    in::ScannedModel one = Stage::scanned(single);
    one.model.facts = model::Facts{"sdxl", {}, "g1", {}, true};
    one.model.components.erase(one.model.components.begin() + 1);
    one.model.components[0].name = "checkpoint";
    one.model.bytes = one.model.components[0].segment_bytes;
    one.layouts.pop_back();
    return {folder, one};
  }
  void scan(std::vector<in::ScannedModel> found = models()) {
    stage.input(in::ModelsScanned{std::move(found), "", {}});
  }
  void limit_cache(const std::string& size) {
    stage.input(in::Set{12, "memory/policy", false, cat("{\"max_model_cache_size\":\"", size, "\"}")});
  }
  void load(const ModelId& model, const std::string& worker = "w0") {
    stage.input(in::LoadModel{9, model, WorkerId(worker), true});
  }
  void until_loaded(const ModelId& model, const std::string& worker = "w0") {
    for (int i = 0; i < 4; ++i) stage.fill_segments();
    stage.vote(worker, stage.prepared(), Vote::vote_commit);
    stage.loaded(worker, stage.prepared(), model);
  }
  void unload(const ModelId& model, const std::string& worker = "w0") {
    stage.input(in::UnloadModel{10, model, WorkerId(worker), true});
    stage.say(worker, FrameType::model_released, ModelReleased{model, {}}, 0, cat("release:", model.str()));
  }
  /// "model/component" of what rides with the newest load.
  std::string rides() const {
    std::string out;
    const Sent newest = stage.sent(FrameType::model_load_request).back();
    for (const out::Attachment& each : newest.effect.attachments) {
      out += cat(out.empty() ? "" : " ", each.model_id.str(), "/", each.component);
    }
    return out;
  }
  std::size_t fills(const ModelId& model, std::string_view component) const {
    const auto orders = stage.all<out::FillSegment>();
    return static_cast<std::size_t>(std::ranges::count_if(
        orders, [&](const auto& each) { return each.model_id == model && each.component == component; }));
  }
  bool in_cache(const ModelId& model, const std::string& component) const {
    return stage.machine.live().segments.contains({model, component});
  }
  std::string last_answer() const {
    const auto answers = stage.all<out::Reply>();
    return answers.empty() ? "" : answers.back().body;
  }

  Stage stage;
};

TEST_F(Design_1_3_configuration, it_is_filled_once_and_rides_with_every_load) {
  load(tiny);
  until_loaded(tiny);
  EXPECT_EQ(rides(), "tiny/unet tiny/vae tiny/configuration");
  const LoadPlan plan = stage.sent(FrameType::transaction_prepare).back().body<TransactionPrepare>().load;
  ASSERT_EQ(plan.components.size(), 3u);
  EXPECT_EQ(plan.components[2].name, "configuration");
  EXPECT_EQ(plan.components[2].bytes, 5_MiB);
  EXPECT_EQ(plan.components[2].sha256, std::string(64, 'a'));
  EXPECT_FALSE(plan.components[2].model_id.has_value());
  load(tiny, "w1");
  until_loaded(tiny, "w1");
  EXPECT_EQ(rides(), "tiny/unet tiny/vae tiny/configuration");
  EXPECT_EQ(fills(tiny, "configuration"), 1u);
  EXPECT_EQ(stage.tables().memory.segments.at("tiny/configuration").bytes, 5_MiB);
}

TEST_F(Design_1_3_configuration, it_takes_of_the_cache_and_nothing_of_the_device) {
  load(tiny);
  until_loaded(tiny);
  const auto& allocations = stage.tables().memory.allocations.entries();
  ASSERT_EQ(allocations.size(), 1u);
  EXPECT_EQ(allocations.begin()->second.row.bytes, 150_MiB);
  Bytes cached;
  for (const auto& [key, segment] : stage.machine.live().segments) cached += segment.size;
  EXPECT_EQ(cached, 155_MiB);
}

TEST_F(Design_1_3_configuration, a_single_file_is_loaded_with_the_one_it_borrows_and_shares_the_memory) {
  load(single);
  until_loaded(single);
  EXPECT_EQ(rides(), "single/checkpoint tiny/configuration");
  const LoadPlan plan = stage.sent(FrameType::transaction_prepare).back().body<TransactionPrepare>().load;
  EXPECT_EQ(plan.components[1].model_id, tiny);
  EXPECT_FALSE(in_cache(tiny, "unet"));  // what it does not need is not brought in
  load(tiny, "w1");
  until_loaded(tiny, "w1");
  EXPECT_EQ(fills(tiny, "configuration"), 1u);
}

TEST_F(Design_1_3_configuration, other_bytes_at_a_later_fill_are_data_loss) {
  load(tiny);
  until_loaded(tiny);
  unload(tiny);
  limit_cache("1MB");  // everything is evicted; the digest is not
  ASSERT_TRUE(stage.machine.live().segments.empty());
  limit_cache("1GB");
  load(tiny);
  for (const std::string component : {"unet", "vae", "configuration"}) {
    const char digit = component == "configuration" ? 'b' : 'a';
    stage.input(in::SegmentFilled{tiny, component, std::string(64, digit)});
  }
  EXPECT_EQ(stage.tables().model.models.at("tiny").availability, model::Availability::broken);
  EXPECT_NE(stage.tables().model.models.at("tiny").reason.find("component configuration of tiny has digest bbbb"),
            std::string::npos);
  EXPECT_EQ(stage.all<out::DropSegment>().back().component, "configuration");
}

TEST_F(Design_1_3_configuration, a_model_of_an_earlier_release_is_registered_anew_with_it) {
  std::vector<in::ScannedModel> before = models();
  before[0].model.components.pop_back();
  before[0].layouts.pop_back();
  scan(before);
  load(tiny);
  until_loaded(tiny);
  EXPECT_EQ(rides(), "tiny/unet tiny/vae");
  scan();
  EXPECT_EQ(stage.tables().model.models.at("tiny").components.size(), 3u);
  ASSERT_EQ(stage.sent(FrameType::model_release).size(), 1u);  // what was loaded of it is of another version
  stage.say("w0", FrameType::model_released, ModelReleased{tiny, {}}, 0, "release:tiny");
  load(tiny);
  until_loaded(tiny);
  EXPECT_EQ(rides(), "tiny/unet tiny/vae tiny/configuration");
}

TEST_F(Design_1_3_configuration, it_is_told_and_shown_as_a_part_of_the_cached_model) {
  load(tiny);
  until_loaded(tiny);
  stage.input(in::View{11, "models/tiny"});
  EXPECT_NE(last_answer().find(R"({"component":"configuration","state":"ready","bytes":5242880})"), std::string::npos)
      << last_answer();
}

// §2.3 model_cache_update: in the cache is a model whose next load reads no disk.
TEST_F(Design_1_3_configuration, a_single_file_is_told_as_cached_as_long_as_what_it_borrows_is) {
  const auto told = [&] { return stage.told("model_cache_update").back().body<ModelCacheUpdate>().cache_changes; };
  load(single);
  until_loaded(single);
  EXPECT_EQ(told().added, std::vector<ModelId>{single});
  std::vector<in::ScannedModel> changed = models();
  changed[0].model.components[2].files[0].modified_ns = 2;  // the folder's copies go, its configuration with them
  scan(changed);
  EXPECT_FALSE(in_cache(tiny, "configuration"));
  EXPECT_TRUE(in_cache(single, "checkpoint"));
  EXPECT_EQ(told().removed, std::vector<ModelId>{single});
}

/// A cache that has room for one of the two, and a processor, whose copies pin.
class Design_1_3_configuration_in_a_small_cache : public Design_1_3_configuration {
 protected:
  Design_1_3_configuration_in_a_small_cache() : Design_1_3_configuration(small()) {}
  static Settings small() {
    Settings settings = settings_of(2);
    settings.cache_limit = 160_MiB;
    return settings;
  }
};

TEST_F(Design_1_3_configuration_in_a_small_cache, the_weights_of_the_lender_give_way_to_the_borrower) {
  load(tiny);
  until_loaded(tiny);
  load(single);
  until_loaded(single);  // 105 MiB beside what is left of 155: the lender's weights are in the way, on a GPU already
  EXPECT_EQ(rides(), "single/checkpoint tiny/configuration");
  EXPECT_FALSE(in_cache(tiny, "unet"));
  EXPECT_EQ(fills(tiny, "configuration"), 1u);
}

TEST_F(Design_1_3_configuration_in_a_small_cache, what_is_lent_stays_while_the_borrower_loads_and_may_go_after) {
  load(single);
  for (int i = 0; i < 4; ++i) stage.fill_segments();
  limit_cache("1MB");
  stage.vote("w0", stage.prepared(), Vote::vote_commit);
  EXPECT_TRUE(in_cache(tiny, "configuration"));
  EXPECT_TRUE(in_cache(single, "checkpoint"));
  EXPECT_EQ(rides(), "single/checkpoint tiny/configuration");
  stage.loaded("w0", stage.prepared(), single);
  EXPECT_FALSE(in_cache(tiny, "configuration"));
  EXPECT_FALSE(in_cache(single, "checkpoint"));
}

TEST_F(Design_1_3_configuration_in_a_small_cache, a_model_that_fits_only_without_it_is_refused_with_the_whole) {
  std::vector<in::ScannedModel> found = models();
  found[0].model.components[2].segment_bytes = 20_MiB;
  scan(found);
  const std::string needs = cat("needs ", to_text(170_MiB), " in the cache; ");
  load(tiny);
  EXPECT_NE(last_answer().find(cat("model tiny ", needs, "there can be ", to_text(160_MiB), " at most")),
            std::string::npos)
      << last_answer();
  stage.generate_with(11, {.model = "tiny"});
  EXPECT_NE(last_answer().find(cat("this ", needs, "its limit is ", to_text(160_MiB))), std::string::npos)
      << last_answer();

  stage.input(command_at(12, "sessions", "{}"));
  CrossDomainCoordination wish;  // of the worker, for the session that it works for
  const auto session = json::from_text<SessionView>(last_answer());
  ASSERT_TRUE(session.has_value()) << last_answer();
  wish.session_id = session->session.session_id;
  stage.generate_with(13, {.model = "single", .session_id = wish.session_id});
  until_loaded(single);
  wish.coordination_request.requires_model_loading = tiny;
  wish.dependent_operations = {"postprocessing"};
  stage.say("w0", FrameType::cross_domain_coordination, wish, 0, coordination_id(wish));
  const RequestAnswer answer = stage.sent(FrameType::request_answer).back().body<RequestAnswer>();
  EXPECT_EQ(answer.outcome, RequestOutcome::denied);
  EXPECT_NE(answer.reason.value_or("").find(cat("model tiny ", needs, "its limit is")), std::string::npos)
      << answer.reason.value_or("");
}

}  // namespace
}  // namespace lockstep::design
