#pragma once

// What transactions did lately, as the documents of §3.1-3.8 that they produced, for people. Volatile: no decision
// rests on it. What is durable of a transaction are its rows (transactions/two_phase_commit.h and those of the
// domains).

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "events/json_write.h"
#include "operations/model_load.h"

namespace lockstep {

/// model_load  a model onto a device: §3.1, §3.2, §3.5, §3.6
/// image       one attempt at an image, from its inference to its output: §3.3, §3.4, §3.6
/// rollback    the outputs that a request had delivered before one of its images failed its gate: §3.4, §3.6
enum class TransactionKind { model_load, image, rollback };
BOOST_DESCRIBE_ENUM(TransactionKind, model_load, image, rollback)

/// preparing     asked, not decided          committed    all is done that was decided
/// committing    decided, not finished       aborted      nothing was done
/// compensating  not all is undone           compensated  what was done was undone
/// parked        the same, and a person has to decide: both as long as transactions.sagas has it
enum class LoggedState { preparing, committing, committed, aborted, compensating, compensated, parked };
BOOST_DESCRIBE_ENUM(LoggedState, preparing, committing, committed, aborted, compensating, compensated, parked)

struct TransactionDocument {
  WallTime at;
  std::string name;  // of events/message_types.h
  RawJson body;
};

/// How far an image is; it never goes back: a further attempt is another transaction.
enum class ImageStep { inferring, handed_over, postprocessing, storing };

/// What a worker's allocator counted while its worker had nothing to do, and what the ledger had in use there then.
struct QuietSample {
  Bytes used;
  Bytes models;
};

/// A sample of a worker's memory beside what is known here.
/// models  what is in use there, and was when the sample before came
/// ledger  all that is granted there: loads that copy and grants too
/// idle    it does nothing, so what it holds beyond its ledger is nobody's
struct MemorySample {
  Bytes used;
  Bytes models;
  Bytes ledger;
  bool idle = false;
};

struct LoggedTransaction {
  TransactionId transaction_id;
  TransactionKind kind = TransactionKind::model_load;
  LoggedState state = LoggedState::preparing;
  ModelId model_id;
  WorkerId worker_id;
  Incarnation incarnation;
  DeviceId device_id;
  Bytes bytes;         // load: of the model
  JobId job_id;        // image; load: the job or order that wants it
  ServiceVotes votes;  // load
  bool asked = true;   // load: the worker was, since all services had said yes
  std::string run_id;  // image
  std::uint32_t attempt = 0;
  ImageStep step = ImageStep::inferring;
  std::string reason;         // why it was aborted or undone
  std::string failure_point;  // load: where it failed, in the words of §3.8
  std::string saga;           // of a rollback, and of what an earlier life began to undo: the definition's name
  WallTime began;
  WallTime changed;
  std::optional<WallTime> decided;
  std::optional<Bytes> beyond_allocator;  // what the driver counted for the worker when it began
  std::optional<QuietSample> before;      // load: of its worker, when it began
  bool unproven = false;                  // nobody has measured yet that what it held is free
  std::uint32_t samples = 0;              // of its worker's memory since then
  std::vector<TransactionDocument> documents;
};

/// Whether the sample that was counted last may prove that what a load held is free. None says when it was taken, and
/// one at most waited in its lane while the word of the failure overtook it.
inline bool may_show_release(const LoggedTransaction& load) { return load.samples > 1; }

/// A run that was dispatched in the decision before; its rows are there when the log looks.
struct BegunImage {
  JobId job_id;
  std::string run_id;
  std::uint32_t attempt = 0;
  WorkerId worker_id;
};

struct TransactionLog {
  static constexpr std::size_t ended_max = 256;

  std::map<TransactionId, LoggedTransaction> entries;
  std::set<TransactionId> open;
  std::deque<TransactionId> ended;  // the oldest is forgotten first
  std::vector<BegunImage> begun;
  // The service that said no, of loads that were refused before a worker was asked: each is told once, not with every
  // look at what waits. Gone when the load is prepared there. When there are too many, those of workers that are gone
  // go, and else no more are told.
  std::map<std::pair<WorkerId, ModelId>, std::string_view> refused;
};

}  // namespace lockstep
