// The sub-commands as a program has them, against a real server of the http room whose core is a fake.

#include "cli/cli.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <thread>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/digest.h"
#include "base/text.h"
#include "http/server.h"
#include "operations/views.h"

namespace lockstep::cli {
namespace {

const std::string png = "PNG bytes";

std::string status_text() {
  StatusView view;
  view.version = "9";
  return json::to_text(view);
}

class CliProgram : public testing::Test {
 protected:
  CliProgram() {
    http::ServerHooks hooks;
    hooks.submit = [this](decltype(Input::what) what, const std::optional<IdempotencyKey>&) { take(std::move(what)); };
    hooks.random = [] { return std::uint64_t{1}; };
    hooks.read_output = [](const std::string&, const std::function<void(Result<std::string>)>& done) { done(png); };
    hooks.store_upload = [](const std::string& bytes, const std::function<void(Result<ImageBuffer>)>& done) {
      done(ImageBuffer{"png", 8, 8, bytes.size(), sha256_hex(bytes)});
    };
    server_ = std::make_unique<http::Server>(reactor_, http::ServerSettings{.port = 0}, hooks);
    EXPECT_TRUE(server_->listen().has_value());
    loop_ = std::thread([this] { reactor_.run(); });
    folder_ = std::filesystem::temp_directory_path() / cat("lockstep-cli-test-", ::getpid());
    std::filesystem::create_directory(folder_);
    view_.request_id = RequestId("req_1");
    view_.kind = "generation";
    view_.state = "accepted";
    view_.jobs.push_back({});
  }
  ~CliProgram() override {
    std::promise<void> done;
    reactor_.post([&] {
      server_.reset();
      done.set_value();
    });
    done.get_future().wait();
    reactor_.stop();
    loop_.join();
    std::filesystem::remove_all(folder_);
  }

  /// The fake core: a generation ends at once, as the test chose.
  void take(decltype(Input::what) what) {
    if (const auto* view = std::get_if<in::View>(&what)) {
      if (view->path == "requests/req_1") return answer(view->reply, 200, json::to_text(view_));
      if (view->path == "status") return answer(view->reply, 200, status_text());
      return answer(view->reply, 404, error("not_found", "there is none"));
    }
    if (const auto* cancel = std::get_if<in::Cancel>(&what)) {
      return answer(cancel->reply, 200, R"({"request_id":"req_1","state":"cancelled"})");
    }
    if (const auto* check = std::get_if<in::Check>(&what)) {
      view_.jobs[0].results = FinalResults{SafetyAnalysis{0.1, "unsafe", {}}, {}};
      return answer(check->reply, 200, json::to_text(view_));
    }
    if (const auto* generate = std::get_if<in::Generate>(&what)) {
      asked_ = generate->body;
      if (!refusal_.empty()) return answer(generate->reply, 429, refusal_);
      answer(generate->reply, 202, R"({"request_id":"req_1","state":"accepted"})");
      InferenceProgress progress;
      progress.execution_metrics = {1, 2, 0.1, {}};
      event("inference_progress", json::to_text(progress));
      if (interrupt_) return static_cast<void>(::pthread_kill(terminal_, SIGINT));
      view_.state = end_.empty() ? "completed" : "failed";
      if (end_.empty()) {
        view_.jobs[0].output = ImageBuffer{"png", 32, 32, png.size(), sha256_hex(png)};
        view_.jobs[0].seed = 5;
        view_.jobs[0].inference_worker = WorkerId("w0");
      } else {
        view_.failure = processing::Failure{end_, "it did not work"};
      }
      event(end_.empty() ? "request_completed" : "request_failed", "{}");
    }
  }
  void answer(ReplyId reply, int status, const std::string& body) { server_->reply({reply, status, body}); }
  void event(const std::string& type, const std::string& body) {
    server_->publish({Rev{}, WallTime{}, {{type, "req_1", RawJson{body}}}});
  }
  static std::string error(const std::string& code, const std::string& message) {
    return cat(R"({"error":{"message":")", message, R"(","type":"x","param":null,"code":")", code, R"("}})");
  }

  /// The exit code; out_ and err_ are what was printed.
  int run(std::vector<std::string> words) {
    CLI::App app;
    Client client(app);
    words.insert(words.end(), {"--url", cat("http://127.0.0.1:", server_->port())});
    std::ranges::reverse(words);  // CLI11 takes them from the back
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    app.parse(words);
    const int code = client.run().value_or(-1);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return code;
  }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  real::Reactor reactor_;
  std::unique_ptr<http::Server> server_;
  std::thread loop_;
  std::filesystem::path folder_;
  RequestView view_;
  GenerateBody asked_;
  std::string refusal_;
  std::string end_;
  bool interrupt_ = false;
  pthread_t terminal_ = ::pthread_self();  // the thread that a Ctrl-C should wake
  std::string out_;
  std::string err_;
};

TEST_F(CliProgram, generate_writes_the_image_and_says_so) {
  const std::string target = file("a.png");
  EXPECT_EQ(run({"generate", "a house", "-o", target, "--seed", "5", "--size", "64x64", "--steps", "4"}), 0) << err_;
  EXPECT_EQ(asked_.prompt, "a house");
  EXPECT_EQ(asked_.seed, 5u);
  EXPECT_EQ(asked_.steps, 4u);
  EXPECT_FALSE(asked_.n.has_value());
  std::ifstream in(target);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), png);
  EXPECT_TRUE(out_.starts_with(cat(target, "  32x32  seed 5  "))) << out_;
  EXPECT_NE(out_.find("by w0"), std::string::npos) << out_;
  EXPECT_NE(err_.find("inference step 1/2\nstored\n"), std::string::npos) << err_;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(CliProgram, generate_answers_programs_with_one_object) {
  const std::string target = file("a.png");
  EXPECT_EQ(run({"generate", "a", "-o", target, "--json"}), 0) << err_;
  EXPECT_TRUE(out_.starts_with(cat(R"({"request_id":"req_1","images":[{"file":")", target, R"(","sha256":")",
                                   sha256_hex(png), R"(","seed":5,"width":32,"height":32}],"seconds":)")))
      << out_;
  EXPECT_EQ(run({"generate", "a", "--no-wait", "--json"}), 0);
  EXPECT_EQ(out_, "{\"request_id\":\"req_1\",\"state\":\"accepted\"}\n");
}

TEST_F(CliProgram, the_exit_code_says_why_it_failed) {
  const std::string target = file("a.png");
  end_ = "safety_blocked";
  EXPECT_EQ(run({"generate", "a", "-o", target}), 8);
  EXPECT_NE(err_.find("lockstep: it did not work\n"), std::string::npos) << err_;
  end_ = "internal";
  EXPECT_EQ(run({"generate", "a", "-o", target}), 1);
  refusal_ = error("resource_exhausted", "the queue is full");
  EXPECT_EQ(run({"generate", "a", "-o", target}), 10);
  EXPECT_EQ(run({"generate", "a", "-o", file("missing/a.png")}), 2);
  EXPECT_FALSE(std::filesystem::exists(target));
}

TEST_F(CliProgram, an_interrupt_cancels_the_request) {
  interrupt_ = true;
  EXPECT_EQ(run({"generate", "a", "-o", file("a.png")}), 130);
  EXPECT_NE(err_.find("req_1 is cancelled"), std::string::npos) << err_;
}

TEST_F(CliProgram, a_check_has_its_verdict_as_exit_code) {
  std::ofstream(file("in.png")) << "PNG";
  EXPECT_EQ(run({"check", file("in.png")}), 8) << err_;
  EXPECT_NE(out_.find("in.png: unsafe (0.100)"), std::string::npos) << out_;
  EXPECT_EQ(run({"check", file("none.png")}), 2);
}

TEST_F(CliProgram, views_are_tables_or_the_servers_own_json) {
  EXPECT_EQ(run({"status"}), 0);
  EXPECT_TRUE(out_.starts_with("lockstep 9  ")) << out_;
  EXPECT_EQ(run({"status", "--json"}), 0);
  EXPECT_EQ(out_, status_text() + "\n");
  EXPECT_EQ(run({"requests", "req_1"}), 0) << err_;
  EXPECT_EQ(run({"requests", "req_2"}), 3);
  EXPECT_EQ(run({"requests", "../x"}), 3);
  EXPECT_EQ(run({"cancel", "req_1"}), 0);
  EXPECT_EQ(out_, "req_1 is cancelled\n");
}

TEST(CliClient, no_server_is_exit_code_6) {
  CLI::App app;
  Client client(app);
  app.parse("status --url http://127.0.0.1:1");
  testing::internal::CaptureStderr();
  EXPECT_EQ(client.run(), 6);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("no server answers at http://127.0.0.1:1"), std::string::npos);
}

TEST(CliClient, the_command_line_wins_over_the_environment) {
  ::setenv("LOCKSTEP_URL", "http://127.0.0.1:2", 1);
  for (const auto& [words, port] : {std::pair{"status --url http://127.0.0.1:1", ":1:"}, {"status", ":2:"}}) {
    CLI::App app;
    Client client(app);
    app.parse(words);
    testing::internal::CaptureStderr();
    EXPECT_EQ(client.run(), 6);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(port), std::string::npos) << said;
  }
  ::unsetenv("LOCKSTEP_URL");
}

TEST(CliClient, other_commands_are_not_ours) {
  CLI::App app;
  Client client(app);
  app.add_subcommand("serve", "");
  app.parse("serve");
  EXPECT_EQ(client.run(), std::nullopt);
}

}  // namespace
}  // namespace lockstep::cli
