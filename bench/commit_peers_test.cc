#include "bench/commit_peers.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "base/text.h"
#include "bench/etcd_peer.h"
#include "bench/postgres_peer.h"
#include "bench/rocksdb_runner.h"

namespace lockstep::bench {
namespace {

namespace fs = std::filesystem;

/// A folder in which programs may be put.
class Peers_of_a_folder : public testing::Test {
 protected:
  Peers_of_a_folder() { EXPECT_NE(::mkdtemp(folder_.data()), nullptr); }
  ~Peers_of_a_folder() override { fs::remove_all(folder_); }
  void program(const std::string& name, const std::string& script) {
    const std::string path = cat(folder_, "/", name);
    std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
    fs::permissions(path, fs::perms::owner_all | fs::perms::others_exec | fs::perms::others_read);
  }
  Error refused(const CommitPeerKind& kind) {
    const auto peer = kind.start(Programs(folder_), folder_, {});
    EXPECT_FALSE(peer.has_value()) << kind.name;
    return peer ? Error{} : peer.error();
  }
  std::string folder_ = (fs::temp_directory_path() / "lockstep-peers-XXXXXX").string();
};

TEST_F(Peers_of_a_folder, one_that_is_not_installed_is_left_out_with_a_line) {
  for (const CommitPeerKind& each : commit_peers()) {
    const Error why = refused(each);
    EXPECT_EQ(why.code, ErrorCode::not_found) << each.name;
    testing::internal::CaptureStderr();
    EXPECT_TRUE(left_out(each.name, why).has_value());
    EXPECT_EQ(testing::internal::GetCapturedStderr(), cat(each.name, " is left out: ", why.message, "\n"));
  }
}

TEST_F(Peers_of_a_folder, one_that_ends_before_it_answers_is_a_failure_with_its_last_words) {
  program("etcd", "echo first; echo 'no room on this disk'; exit 1");
  const Error why = refused(commit_peers()[1]);
  EXPECT_EQ(why.code, ErrorCode::unavailable);
  EXPECT_EQ(why.message, "etcd ended before it answered: no room on this disk");
  EXPECT_FALSE(left_out("etcd", why).has_value());
}

TEST_F(Peers_of_a_folder, half_an_installation_is_none) {
  program("initdb", "exit 0");
  program("postgres", "exit 0");
  const Error why = refused(commit_peers()[0]);
  EXPECT_EQ(why.code, ErrorCode::not_found);
  EXPECT_TRUE(why.message.starts_with("pg_isready is not installed beside ")) << why.message;
}

TEST_F(Peers_of_a_folder, the_figures_of_a_program_are_what_it_printed) {
  program("rocksdb_peer", "echo \"transactions/s 250.5\"; echo 4000.25; echo $2; echo $3");
  const auto peer = start_rocksdb(Programs(folder_), folder_, {});
  ASSERT_TRUE(peer.has_value());
  const auto figures = (*peer)->run(64, 3);
  ASSERT_TRUE(figures.has_value()) << figures.error().message;
  EXPECT_EQ(figures->per_s, 250.5);
  EXPECT_EQ(figures->us, (std::vector<double>{4000.25, 64, 3}));
}

TEST_F(Peers_of_a_folder, a_program_that_fails_gives_no_figures) {
  program("rocksdb_peer", "echo \"transactions/s 250.5\"; echo 1; echo 'Commit: disk full' >&2; exit 1");
  const auto peer = start_rocksdb(Programs(folder_), folder_, {});
  ASSERT_TRUE(peer.has_value());
  const auto figures = (*peer)->run(1, 1);
  ASSERT_FALSE(figures.has_value());
  EXPECT_TRUE(figures.error().message.ends_with("rocksdb_peer failed: Commit: disk full")) << figures.error().message;
}

TEST(Commit_peers, the_target_is_the_most_that_one_of_them_asks) {
  Ordered<double> peers;
  EXPECT_EQ(target_beside(peers), std::nullopt);
  peers.items.emplace_back("etcd", 1000);
  EXPECT_EQ(target_beside(peers), 5000);
  peers.items.emplace_back("rocksdb", 2400);
  EXPECT_EQ(target_beside(peers), 5000);
  peers.items.emplace_back("postgresql", 1100);
  EXPECT_EQ(target_beside(peers), 5500);
  peers.items[1].second = 2800;
  EXPECT_EQ(target_beside(peers), 5600);
}

TEST(Figures_of_rocksdb, fewer_or_more_than_were_asked_for_are_none) {
  EXPECT_TRUE(figures_of("transactions/s 9\n1\n2\n", 2).has_value());
  for (const char* text : {"", "transactions/s 9\n1\n", "transactions/s 9\n1\n2\n3\n", "transactions/s 9\n1\nx\n"}) {
    EXPECT_FALSE(figures_of(text, 2).has_value()) << text;
  }
}

// §3.1: three participants, a promise under a name of its own, and the decision as a message of its own.
TEST(Script_of_postgresql, promises_three_rows_and_then_decides) {
  const std::string script = postgres_script();
  std::size_t at = 0;
  for (const char* each : {"BEGIN \\;", "UPDATE device ", "UPDATE memory ", "UPDATE model ",
                           "PREPARE TRANSACTION 'p-:run-:client_id-:n';", "COMMIT PREPARED 'p-:run-:client_id-:n';"}) {
    const std::size_t found = script.find(each, at);
    ASSERT_NE(found, std::string::npos) << each;
    at = found + 1;
  }
}

TEST(Log_of_pgbench, the_third_field_of_a_line_is_what_a_transaction_took) {
  const auto took = latencies_of("0 1 812 0 1795855000 120\n3 2 1733 0 1795855000 9001\n");
  ASSERT_TRUE(took.has_value()) << took.error().message;
  EXPECT_EQ(*took, (std::vector<double>{812, 1733}));
  for (const char* line : {"0 1\n", "0 1 failed 0 1795855000 120\n", "words\n"}) {
    EXPECT_FALSE(latencies_of(line).has_value()) << line;
  }
}

TEST(Report_of_pgbench, the_rate_counts_when_every_transaction_was_done) {
  const std::string head = "number of transactions actually processed: 640/640\nlatency average = 15 ms\n";
  const std::string rate = "tps = 4211.75 (without initial connection time)\n";
  EXPECT_EQ(rate_of(head + rate, 640), 4211.75);
  EXPECT_FALSE(rate_of(head + rate, 650).has_value());
  EXPECT_FALSE(rate_of(head, 640).has_value());
}

TEST(Request_to_etcd, compares_three_versions_and_puts_three_values) {
  const std::string request = etcd_request(7, 41);
  const std::size_t head = request.find("\r\n\r\n");
  ASSERT_NE(head, std::string::npos);
  const std::string body = request.substr(head + 4);
  EXPECT_NE(request.find(cat("Content-Length: ", body.size(), "\r\n")), std::string::npos);
  for (const char* key : {"ZGV2aWNlLzc=", "bWVtb3J5Lzc=", "bW9kZWwvNw=="}) {  // device/7, memory/7, model/7
    EXPECT_NE(body.find(cat(R"({"key":")", key, R"(","target":"VERSION","result":"EQUAL","version":"41"})")),
              std::string::npos)
        << body;
    EXPECT_NE(body.find(cat(R"({"request_put":{"key":")", key, R"(","value":")")), std::string::npos) << body;
  }
}

TEST(Answer_of_etcd, is_taken_whole_and_says_whether_the_compares_held) {
  const std::string good = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"succeeded\":true}";
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    const auto part = etcd_answer(std::string_view(good).substr(0, cut));
    ASSERT_TRUE(part.has_value()) << part.error().message;
    EXPECT_FALSE(part->has_value()) << cut;
  }
  const auto whole = etcd_answer(good + "HTTP/1.1 200 OK\r\n");
  ASSERT_TRUE(whole && *whole);
  EXPECT_EQ((*whole)->size, good.size());
  EXPECT_TRUE((*whole)->succeeded);
  const auto other = etcd_answer("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"header\":{}}");
  ASSERT_TRUE(other && *other);
  EXPECT_FALSE((*other)->succeeded);
  EXPECT_FALSE(etcd_answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}").has_value());
  EXPECT_FALSE(etcd_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}").has_value());
}

}  // namespace
}  // namespace lockstep::bench
