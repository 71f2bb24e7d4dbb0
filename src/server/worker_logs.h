#pragma once

// The logs of worker processes: files that the workers append to themselves, bounded from outside, and read for people.
// A worker holds its own descriptor, so it needs nobody who reads (docs/decisions/0017-bounded-worker-logs.md).

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "http/server.h"

namespace lockstep::server {

/// Any thread. Worker ids are plain names (the configuration saw to it); each is <folder>/<id>.log, and <id>.log.1 what
/// was before. Invariant: a file that bound() saw is at most `limit` long afterwards, and so is its predecessor.
class WorkerLogs {
 public:
  /// first_generation   tells this life's places in a log from those of earlier lives; above all of them
  WorkerLogs(std::string folder, Bytes limit, std::uint64_t first_generation)
      : folder_(std::move(folder)), limit_(limit), first_generation_(first_generation) {}

  std::string path(const WorkerId& worker) const { return folder_ + "/" + worker.str() + ".log"; }
  std::string path_before(const WorkerId& worker) const { return path(worker) + ".1"; }

  /// Whether the log is longer than its limit.
  bool too_long(const WorkerId& worker) const;
  /// Moves the newest `limit` bytes of a log that is too long to its predecessor and empties it. What the worker writes
  /// between the two is lost. Where there is no room for a copy the log is emptied without one.
  /// Returns a sentence when something was cut or went wrong; empty otherwise.
  std::string bound(const WorkerId& worker);

  /// The last lines, at most 4 KiB, for the report of a death.
  std::string last_words(const WorkerId& worker, std::size_t lines) const;
  /// The last `request.lines` lines (of both files), or what came after an earlier piece's end; at most 1 MiB.
  /// invalid_argument when request.after is no place.
  Result<http::LogPiece> read(const WorkerId& worker, const http::LogRequest& request) const;

 private:
  std::uint64_t generation(const WorkerId& worker) const;

  const std::string folder_;
  const Bytes limit_;
  const std::uint64_t first_generation_;
  mutable std::mutex mutex_;
  std::map<WorkerId, std::uint64_t> cuts_;
};

}  // namespace lockstep::server
