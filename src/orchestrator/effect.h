#pragma once

// Everything the orchestrator wants done, as values. The loop releases them when what they depend on is durable.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "orchestrator/input.h"
#include "orchestrator/settings.h"
#include "propagation/framing.h"
#include "state/commit.h"

namespace lockstep {

namespace out {

/// The epoch is durable: listeners may open.
struct Listen {};
struct SpawnWorker {
  WorkerSettings worker;
  Incarnation incarnation;
};
/// Kill it; the process handle reports the end as WorkerGone.
struct KillWorker {
  WorkerId worker_id;
  Incarnation incarnation;
  std::string why;
};
/// Answer WorkerGone only when this process is proven gone. Without `kill` it is waited for only: it may rejoin, and
/// its AcceptLink ends the wait.
struct ProveGone {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid;
  std::uint64_t start_ticks;
  Origin origin = Origin::spawned;
  bool kill = true;
};
/// The connection is this worker's from now on, in place of any other.
struct AcceptLink {
  LinkId link;
  WorkerId worker_id;
  Incarnation incarnation;
};
/// The last thing it hears.
struct RefuseLink {
  LinkId link;
  Frame frame;
};
/// A segment that a worker gave back is the cache's again.
struct AdoptSegment {
  ModelId model_id;
  std::string component;
  HandleId handle;  // given up with this effect
};
/// A descriptor that rides with a frame: a cache segment or a handle.
struct Attachment {
  ModelId model_id;  // a segment when not empty
  std::string component;
  HandleId handle = 0;
};
struct SendFrame {
  WorkerId worker_id;
  Incarnation incarnation;
  Frame frame;
  std::vector<Attachment> attachments;
  LinkId link = 0;
  Passage passage = {};
};
struct ArmTimer {
  std::string name;
  Nanos deadline;  // on the node's monotonic clock; arming again moves it
};
struct DisarmTimer {
  std::string name;
};
struct ScanModels {};
struct FillSegment {
  ModelId model_id;
  std::string component;
  std::vector<model::File> files;
  std::shared_ptr<const model::SegmentLayout> layout;
};
struct DropSegment {
  ModelId model_id;
  std::string component;
};
/// Reads the files whole; they must be those that were scanned.
struct HashFiles {
  ModelId model_id;
  std::string component;
  std::vector<model::File> files;
};
/// Brings a file or folder into the models folder, whole or not at all, and scans it.
struct AddFiles {
  ReplyId reply;
  std::string path;
  ModelId model_id;
  bool link;
};
/// Deletes a model's file or folder, or the link to it, and scans.
struct RemoveFiles {
  ReplyId reply;
  ModelId model_id;
  std::string path;
};
/// Writes a snapshot of the journal, or copies it into a file that is not there yet; in::JournalKept answers.
struct KeepJournal {
  ReplyId reply;
  std::optional<std::string> file;
};
struct OpenPixels {
  JobId job_id;
  ImageBuffer source;
};
struct StorePixels {
  JobId job_id;
  std::uint32_t attempt;
  HandleId handle;  // given up with this effect
  ImageBuffer expected;
};
/// Nobody refers to this content any more. Done before any StorePixels that comes after it; OutputRemoved answers.
struct RemoveOutput {
  std::string saga_id;
  std::string sha256;
};
struct DropHandle {
  HandleId handle;
};
struct Reply {
  ReplyId reply;
  int status;
  std::string body;           // JSON
  std::string location = {};  // where to look meanwhile
  bool again = false;         // this was answered before
};
struct ImageReply {
  ImageBuffer image;
  std::uint64_t seed;
};
/// The images of a completed request, in the OpenAI shape; the HTTP side reads the files.
struct ReplyImages {
  ReplyId reply;
  RequestId request_id;
  WallTime created;
  bool as_url;
  std::vector<ImageReply> images;
  bool again = false;
};
/// rev 0: progress, which is not durable and carries no id.
struct Publish {
  Rev rev;
  WallTime time;
  std::vector<CommitEvent> events;
};
struct Log {
  bool warning;
  std::string text;
};
/// The end: nothing runs any more. `left` is what the journal still holds.
struct Stop {
  std::size_t jobs_left;
};

}  // namespace out

struct Effect {
  std::variant<out::Listen, out::SpawnWorker, out::KillWorker, out::ProveGone, out::AcceptLink, out::RefuseLink,
               out::AdoptSegment, out::SendFrame, out::ArmTimer, out::DisarmTimer, out::ScanModels, out::FillSegment,
               out::DropSegment, out::HashFiles, out::AddFiles, out::RemoveFiles, out::KeepJournal, out::OpenPixels,
               out::StorePixels, out::RemoveOutput, out::DropHandle, out::Reply, out::ReplyImages, out::Publish,
               out::Log, out::Stop>
      what;
};

}  // namespace lockstep
