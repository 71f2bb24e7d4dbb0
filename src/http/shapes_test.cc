#include "http/shapes.h"

#include <gtest/gtest.h>

namespace lockstep::http {
namespace {

const std::string hash(64, 'a');

TEST(HttpShapes, every_route_is_found_with_its_name) {
  EXPECT_EQ(route_of("GET", "/livez")->kind, Route::Kind::livez);
  EXPECT_EQ(route_of("GET", "/readyz")->name, "readyz");
  EXPECT_EQ(route_of("GET", "/api/v1/status")->name, "status");
  EXPECT_EQ(route_of("GET", "/v1/models")->name, "v1/models");
  EXPECT_EQ(route_of("GET", "/api/v1/requests/req_1")->name, "requests/req_1");
  EXPECT_EQ(route_of("POST", "/api/v1/requests/req_1/cancel")->name, "req_1");
  EXPECT_EQ(route_of("GET", "/api/v1/devices/gpu_0")->name, "devices/gpu_0");
  EXPECT_EQ(route_of("POST", "/api/v1/devices/gpu_0/calibrate")->kind, Route::Kind::calibrate_device);
  EXPECT_EQ(route_of("POST", "/api/v1/devices/gpu_0/calibrate")->name, "gpu_0");
  EXPECT_EQ(route_of("GET", "/api/v1/outputs/" + hash)->name, hash);
  EXPECT_EQ(route_of("HEAD", "/api/v1/outputs/" + hash + ".png")->kind, Route::Kind::output);
  EXPECT_EQ(route_of("POST", "/api/v1/journal/snapshot")->kind, Route::Kind::journal);
  EXPECT_EQ(route_of("POST", "/api/v1/journal/backup")->name, "journal/backup");
  EXPECT_EQ(route_of("GET", "http://other:1/livez")->kind, Route::Kind::livez);
  EXPECT_EQ(route_of("GET", "/api/v1/events?subject=a")->query, "subject=a");
}

TEST(HttpShapes, no_spelling_of_a_path_reaches_a_file) {
  for (const std::string target :
       {"/api/v1/outputs/../../etc/passwd", "/api/v1/outputs/..%2f..%2fetc%2fpasswd", "/api/v1/outputs/%00",
        "/api/v1/outputs/", "/api/v1/outputs/abc", "/api/v1/requests/..", "/api/v1/requests/a/b",
        "/api/v1/requests/a%2fb", "/api/v1/requests//cancel", "/api/v1/requests/../cancel", "//livez", "/livez/", "/",
        "", "*", "http://", "http://x"}) {
    const auto route = route_of("GET", target);
    ASSERT_FALSE(route.has_value()) << target;
    EXPECT_EQ(route.error().status, 404) << target;
  }
  EXPECT_FALSE(route_of("GET", "/api/v1/outputs/" + std::string(64, 'G')));
  EXPECT_FALSE(route_of("GET", "/api/v1/outputs/" + hash + "/x"));
}

TEST(HttpShapes, a_wrong_method_names_the_right_one) {
  const auto route = route_of("DELETE", "/api/v1/status");
  ASSERT_FALSE(route.has_value());
  EXPECT_EQ(route.error().status, 405);
  ASSERT_EQ(route.error().headers.size(), 1u);
  EXPECT_EQ(route.error().headers[0].second, "GET, HEAD");
  EXPECT_EQ(route_of("GET", "/v1/images/generations").error().headers[0].second, "POST");
}

TEST(HttpShapes, a_copy_of_the_journal_goes_to_a_path_from_the_root) {
  EXPECT_EQ(read_backup(R"({"file":"/var/copies/one.db"})").value_or(""), "/var/copies/one.db");
  for (const std::string& body :
       {std::string(R"({"file":"one.db"})"), std::string(R"({"file":""})"), std::string(R"({"file":"/copies/"})"),
        std::string(R"({"file":"/a\u0000b"})"), "{\"file\":\"/" + std::string(4000, 'a') + "\"}"}) {
    const auto file = read_backup(body);
    ASSERT_FALSE(file.has_value()) << body.substr(0, 100);
    EXPECT_EQ(file.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(file.error().pointer, "/file");
  }
  EXPECT_FALSE(read_backup(R"({"file":"/a","force":true})").has_value());
}

TEST(HttpShapes, an_error_has_the_openai_shape) {
  const Error error = fail(ErrorCode::invalid_argument, "steps is 0", "/steps");
  EXPECT_EQ(error_answer(error).body,
            R"({"error":{"message":"steps is 0","type":"invalid_request_error","param":"steps",)"
            R"("code":"invalid_argument"}})");
  EXPECT_EQ(error_answer(fail(ErrorCode::internal, "x")).body,
            R"({"error":{"message":"x","type":"server_error","param":null,"code":"internal"}})");
}

TEST(HttpShapes, an_unknown_key_is_named_and_refused) {
  const auto body = read_generate_body(R"({"prompt":"a","step":3})");
  ASSERT_FALSE(body.has_value());
  EXPECT_EQ(body.error().pointer, "/step");
  EXPECT_NE(body.error().message.find("\"step\""), std::string::npos) << body.error().message;
  EXPECT_FALSE(read_generate_body(""));
  EXPECT_FALSE(read_generate_body("{}"));
  EXPECT_TRUE(read_generate_body(R"({"prompt":"a","n":2})"));
}

TEST(HttpShapes, the_origin_must_be_the_host_itself) {
  EXPECT_TRUE(origin_allowed("http://127.0.0.1:7420", "127.0.0.1:7420", true));
  EXPECT_TRUE(origin_allowed("http://localhost:7420", "LOCALHOST:7420", true));
  EXPECT_TRUE(origin_allowed("http://[::1]:7420", "[::1]:7420", true));
  EXPECT_TRUE(origin_allowed("https://gpu.example:7420", "gpu.example:7420", false));
  EXPECT_FALSE(origin_allowed("http://evil.example", "127.0.0.1:7420", true));
  EXPECT_FALSE(origin_allowed("null", "127.0.0.1:7420", true));
  // A name that was rebound to our address.
  EXPECT_FALSE(origin_allowed("http://evil.example:7420", "evil.example:7420", true));
  EXPECT_FALSE(origin_allowed("http://127.evil.example:7420", "127.evil.example:7420", true));
}

TEST(HttpShapes, base64_is_the_standard_one) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64(std::string_view("\0\xff\xfe", 3)), "AP/+");
}

TEST(HttpShapes, images_are_in_the_openai_shape) {
  out::ReplyImages reply{1, RequestId("req_1"), WallTime{1'700'000'000'999}, false, {}};
  reply.images.push_back({{"png", 8, 4, 3, hash}, 42});
  EXPECT_EQ(images_text(reply, "http://h:1", {"foo"}),
            R"({"created":1700000000,"data":[{"b64_json":"Zm9v"}],"output_format":"png","size":"8x4",)"
            R"("lockstep":{"request_id":"req_1","images":[{"sha256":")" +
                hash + R"(","seed":42,"width":8,"height":4}]}})");
  reply.as_url = true;
  EXPECT_NE(images_text(reply, "http://h:1", {}).find(R"({"url":"http://h:1/api/v1/outputs/)" + hash + R"(.png"})"),
            std::string::npos);
}

TEST(HttpShapes, only_a_durable_event_has_an_id) {
  const CommitEvent event{"worker_ready", "w1", RawJson{R"({"a":1})"}};
  EXPECT_EQ(event_text(Rev{7}, WallTime{0}, event),
            "id: 7\nevent: worker_ready\ndata: {\"rev\":7,\"time\":\"1970-01-01T00:00:00.000Z\","
            "\"type\":\"worker_ready\",\"subject\":\"w1\",\"body\":{\"a\":1},"
            "\"urgency\":\"p2_normal\",\"domain\":\"device\"}\n\n");
  EXPECT_TRUE(event_text(Rev{}, WallTime{0}, event).starts_with("event: worker_ready\ndata: {\"time\":"));
}

// Only its last event carries the id of a commit: who was cut in the middle comes back for the whole of it.
TEST(HttpShapes, the_events_of_one_commit_end_with_its_id) {
  const std::string text = events_text(Rev{7}, WallTime{0}, {{"a", "s", {}}, {"b", "s", {}}, {"c", "s", {}}});
  EXPECT_EQ(text.find("id: 7\n"), text.find("id: 7\nevent: c\n"));
  EXPECT_NE(text.find("id: 7\nevent: c\n"), std::string::npos);
  EXPECT_TRUE(text.starts_with("event: a\ndata: {\"rev\":7,")) << text;
  EXPECT_EQ(events_text(Rev{7}, WallTime{0}, {}), "");
}

TEST(HttpShapes, query_values_are_decoded_and_typing_errors_are_named) {
  const auto values = query_values("a=1&subject=req%5f1&", {"subject", "a"});
  ASSERT_TRUE(values.has_value());
  EXPECT_EQ(values->at("subject"), "req_1");
  EXPECT_EQ(values->at("a"), "1");
  EXPECT_TRUE(query_values("", {"a"})->empty());
  for (const std::string query : {"subject=%zz", "subject=%4", "subject", "subject=1&subject=1", "subjekt=1"}) {
    const auto refused = query_values(query, {"subject", "a"});
    ASSERT_FALSE(refused.has_value()) << query;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_TRUE(refused.error().pointer.starts_with("/subje")) << refused.error().pointer;
  }
  EXPECT_NE(query_values("b=1", {"subject", "a"}).error().message.find("known are subject, a"), std::string::npos);
}

TEST(HttpShapes, tokens_ignore_case_and_spaces) {
  EXPECT_TRUE(has_token("wait=5, Respond-Async", "respond-async"));
  EXPECT_FALSE(has_token("respond-asynchronously", "respond-async"));
}

TEST(HttpShapes, models_have_their_routes_and_methods) {
  const auto kind = [](std::string_view method, std::string_view target) {
    const auto route = route_of(method, target);
    return route ? route->kind : Route::Kind::livez;
  };
  EXPECT_EQ(kind("GET", "/api/v1/models"), Route::Kind::models);
  EXPECT_EQ(kind("POST", "/api/v1/models"), Route::Kind::models);
  EXPECT_EQ(kind("DELETE", "/api/v1/models/tiny"), Route::Kind::model);
  EXPECT_EQ(kind("GET", "/api/v1/loads"), Route::Kind::view);
  EXPECT_EQ(kind("GET", "/api/v1/memory/history"), Route::Kind::view);
  EXPECT_EQ(kind("POST", "/api/v1/models/tiny/load"), Route::Kind::load_model);
  EXPECT_EQ(kind("POST", "/api/v1/models/tiny/unload"), Route::Kind::unload_model);
  EXPECT_EQ(kind("POST", "/api/v1/models/tiny/verify"), Route::Kind::verify_model);
  EXPECT_EQ(route_of("DELETE", "/api/v1/models").error().status, 405);
  EXPECT_EQ(route_of("DELETE", "/api/v1/models/..").error().status, 404);
}

TEST(HttpShapes, an_added_model_has_the_name_of_its_file) {
  EXPECT_EQ(read_add_model(R"({"path":"/a/b.safetensors"})")->name, "b");
  EXPECT_EQ(read_add_model(R"({"path":"/a/folder/"})")->name, "folder");
  EXPECT_TRUE(read_add_model(R"({"path":"/a/b","name":"c","mode":"link"})")->link);
  for (const char* body : {R"({"path":"/"})", R"({"path":"/a/b","name":"../c"})", R"({"path":"/a/b","mode":"move"})",
                           R"({"path":"/a/b","nmae":"c"})", R"({})", R"({"path":"/a/b c.safetensors"})"}) {
    EXPECT_EQ(read_add_model(body).error().code, ErrorCode::invalid_argument) << body;
  }
}

}  // namespace
}  // namespace lockstep::http
