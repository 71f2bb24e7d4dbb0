#include "server/worker_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/text.h"
#include "env/real/fd.h"

namespace lockstep::server {

namespace {

constexpr std::uint64_t read_bytes_max = 1u << 20;
constexpr std::uint64_t words_bytes_max = 4096;

std::uint64_t size_of(const std::string& path) {
  struct stat facts{};
  return ::stat(path.c_str(), &facts) == 0 ? static_cast<std::uint64_t>(facts.st_size) : 0;
}

/// The bytes from `begin` to `end` that are there.
std::string bytes_of(const std::string& path, std::uint64_t begin, std::uint64_t end) {
  const real::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || end <= begin) return "";
  std::string out(end - begin, '\0');
  std::size_t have = 0;
  while (have < out.size()) {
    const ssize_t got = ::pread(file.get(), out.data() + have, out.size() - have, static_cast<off_t>(begin + have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  out.resize(have);
  return out;
}

/// At most `bytes_max` from the end.
std::string end_of(const std::string& path, std::uint64_t bytes_max) {
  const std::uint64_t size = size_of(path);
  return bytes_of(path, size - std::min(size, bytes_max), size);
}

std::size_t lines_in(std::string_view text) {
  const auto whole = static_cast<std::size_t>(std::ranges::count(text, '\n'));
  return whole + (text.empty() || text.ends_with('\n') ? 0 : 1);
}

std::string_view last_lines(std::string_view text, std::size_t lines) {
  if (lines == 0) return {};
  std::size_t at = text.ends_with('\n') ? text.size() - 1 : text.size();
  for (std::size_t seen = 0; at > 0; --at) {
    if (text[at - 1] == '\n' && ++seen == lines) break;
  }
  return text.substr(at);
}

struct Place {
  std::uint64_t generation = 0;
  std::uint64_t offset = 0;
};

Result<Place> place_of(const std::string& text) {
  Place place;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, place.generation);
  if (first.ec == std::errc{} && first.ptr != end && *first.ptr == '-') {
    const auto second = std::from_chars(first.ptr + 1, end, place.offset);
    if (second.ec == std::errc{} && second.ptr == end) return place;
  }
  return fail(ErrorCode::invalid_argument,
              cat("after is \"", shortened(text), "\"; it must be the Lockstep-Log-End of an earlier answer"),
              "/after");
}

Status write_whole(const std::string& path, std::string_view bytes) {
  const auto failed = [&](std::string_view what) {
    return fail(ErrorCode::unavailable, cat("cannot ", what, " ", path, ": ", std::strerror(errno)));
  };
  const real::Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return failed("open");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const Status status = failed("write");
      ::unlink(path.c_str());  // half a copy only takes the room that is missing
      return status;
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

bool WorkerLogs::too_long(const WorkerId& worker) const { return size_of(path(worker)) > limit_.value; }

std::string WorkerLogs::bound(const WorkerId& worker) {
  const std::uint64_t size = size_of(path(worker));
  if (size <= limit_.value) return "";
  const Status copied = write_whole(path_before(worker), end_of(path(worker), limit_.value));
  {
    const std::lock_guard lock(mutex_);
    ++cuts_[worker];
  }
  // Workers append: whatever they write next goes to the new beginning.
  if (::truncate(path(worker).c_str(), 0) != 0) {
    return cat("cannot cut the log ", path(worker), ": ", std::strerror(errno));
  }
  if (!copied) return cat(path(worker), " is emptied; its end could not be kept: ", copied.error().message);
  return cat(path(worker), " reached ", to_text(Bytes{size}), "; its newest ", to_text(limit_), " are in ",
             path_before(worker));
}

std::uint64_t WorkerLogs::generation(const WorkerId& worker) const {
  const std::lock_guard lock(mutex_);
  const auto place = cuts_.find(worker);
  return first_generation_ + (place == cuts_.end() ? 0 : place->second);
}

std::string WorkerLogs::last_words(const WorkerId& worker, std::size_t lines) const {
  const std::string text = end_of(path(worker), words_bytes_max);
  std::string_view words = last_lines(text, lines);
  if (words.ends_with('\n')) words.remove_suffix(1);
  return std::string(words);
}

Result<http::LogPiece> WorkerLogs::read(const WorkerId& worker, const http::LogRequest& request) const {
  // The generation first: a cut in between makes the next piece begin anew, never in the middle of something else.
  const std::uint64_t now = generation(worker);
  const std::uint64_t size = size_of(path(worker));
  http::LogPiece piece;
  if (request.after.empty()) {
    std::string text = bytes_of(path(worker), size - std::min(size, read_bytes_max), size);
    piece.end = cat(now, "-", size);
    if (lines_in(text) < request.lines && text.size() < read_bytes_max) {
      const std::string before = end_of(path_before(worker), read_bytes_max - text.size());
      text = cat(last_lines(before, request.lines - lines_in(text)), text);
    }
    piece.text = last_lines(text, request.lines);
    return piece;
  }
  const Place place = LOCKSTEP_TRY(place_of(request.after));
  const bool cut = place.generation != now || place.offset > size;
  const std::uint64_t begin = cut ? 0 : place.offset;
  const std::uint64_t end = std::min(size, begin + read_bytes_max);
  if (cut) piece.text = cat("[the log was cut here; what was before is in ", worker.str(), ".log.1]\n");
  piece.text += bytes_of(path(worker), begin, end);
  piece.end = cat(now, "-", end);
  return piece;
}

}  // namespace lockstep::server
