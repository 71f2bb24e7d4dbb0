#include "bench/rocksdb_runner.h"

#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/text.h"

namespace lockstep::bench {

namespace fs = std::filesystem;

namespace {

class RocksDb : public CommitPeer {
 public:
  RocksDb(std::string program, std::string folder, Placement placement)
      : program_(std::move(program)), folder_(std::move(folder)), placement_(placement) {}

  /// A database of its own for each run.
  Result<CommitFigures> run(int in_flight, int count) override {
    std::string folder = folder_ + "/rocksdb-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) return fail(ErrorCode::unavailable, "cannot make a folder for RocksDB");
    const auto text = output_of({program_, folder + "/data", cat(in_flight), cat(count), cat(peer_value_size)},
                                {.cpu = placement_.hub, .log = folder + "/log"});
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    if (!text) return text.error();
    return figures_of(*text, count);
  }

 private:
  std::string program_;
  std::string folder_;
  Placement placement_;
};

}  // namespace

Result<CommitFigures> figures_of(std::string_view text, int count) {
  constexpr std::string_view head = "transactions/s ";
  CommitFigures out;
  const char* const end = text.data() + text.size();
  const char* at = text.data() + (text.starts_with(head) ? head.size() : text.size());
  auto read = std::from_chars(at, end, out.per_s);
  while (read.ec == std::errc{} && read.ptr + 1 < end) {
    double us = 0;
    read = std::from_chars(read.ptr + 1, end, us);
    out.us.push_back(us);
  }
  if (read.ec != std::errc{} || out.us.size() != static_cast<std::size_t>(count)) {
    return fail(ErrorCode::internal, cat("not the figures of ", count, " transactions: ", shortened(text)));
  }
  return out;
}

Result<std::unique_ptr<CommitPeer>> start_rocksdb(const Programs& programs, const std::string& folder,
                                                  Placement placement) {
  const std::string program = programs.find("rocksdb_peer");
  if (program.empty()) return fail(ErrorCode::not_found, "it was not there when this was built");
  return std::make_unique<RocksDb>(program, folder, placement);
}

}  // namespace lockstep::bench
