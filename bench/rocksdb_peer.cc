// RocksDB's TransactionDB as a peer of `lockstep bench transactions`, which runs this program where it was built:
// three keys in a transaction with a name, Prepare() and Commit(), each synced, with every default of the library.
//
//   rocksdb_peer FOLDER THREADS COUNT BYTES
//
// Prints "transactions/s NUMBER", then the microseconds of each transaction, a line each (bench/rocksdb_runner.h).

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <rocksdb/options.h>
#include <rocksdb/utilities/transaction.h>
#include <rocksdb/utilities/transaction_db.h>

namespace {

using Clock = std::chrono::steady_clock;

/// Nothing goes on after one that failed.
void check(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}

void transact(rocksdb::TransactionDB& db, int thread, int number, const std::string& value) {
  rocksdb::WriteOptions options;
  options.sync = true;
  const std::unique_ptr<rocksdb::Transaction> transaction(db.BeginTransaction(options));
  check(transaction->SetName("p:" + std::to_string(thread) + ":" + std::to_string(number)), "SetName");
  for (const char* participant : {"device/", "memory/", "model/"}) {
    check(transaction->Put(participant + std::to_string(thread), value), "Put");
  }
  check(transaction->Prepare(), "Prepare");
  check(transaction->Commit(), "Commit");
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc == 5 ? std::atoi(argv[2]) : 0;
  const int count = argc == 5 ? std::atoi(argv[3]) : 0;
  if (threads <= 0 || count <= 0) {
    std::fprintf(stderr, "usage: rocksdb_peer FOLDER THREADS COUNT BYTES\n");
    return 2;
  }
  const std::string value(static_cast<std::size_t>(std::atoi(argv[4])), 'x');
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::TransactionDB* opened = nullptr;
  check(rocksdb::TransactionDB::Open(options, rocksdb::TransactionDBOptions(), argv[1], &opened), "Open");
  const std::unique_ptr<rocksdb::TransactionDB> db(opened);

  std::vector<double> us(static_cast<std::size_t>(count));
  std::atomic<int> next{0};
  std::vector<std::thread> workers;
  const auto begin = Clock::now();
  for (int thread = 0; thread < threads; ++thread) {
    workers.emplace_back([&, thread] {
      for (int number = 0; (number = next++) < count;) {
        const auto begun = Clock::now();
        transact(*db, thread, number, value);
        us[static_cast<std::size_t>(number)] = std::chrono::duration<double, std::micro>(Clock::now() - begun).count();
      }
    });
  }
  for (std::thread& each : workers) each.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::printf("transactions/s %.3f\n", count / seconds);
  for (const double each : us) std::printf("%.3f\n", each);
  return 0;
}
