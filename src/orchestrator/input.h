#pragma once

// Everything that can happen to the orchestrator, as values. Time and randomness come in here too.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "domains/model/safetensors.h"
#include "domains/model/types.h"
#include "env/frame.h"
#include "liveness/worker_record.h"
#include "operations/accept.h"
#include "ownership/facts.h"

namespace lockstep {

/// A request of the HTTP side that waits for an answer.
using ReplyId = std::uint64_t;
/// A descriptor that the environment keeps for the core: pixels, mostly.
using HandleId = std::uint64_t;

/// One connection to a worker; in this process a later connection has a higher number.
using LinkId = std::uint64_t;

namespace in {

/// Recovery is complete. new_cluster_id is used when the journal is empty.
/// worker_secret_sha256 is of what a worker that dials the path for the first time must know; empty: none may.
struct Started {
  std::string new_cluster_id;
  std::string worker_secret_sha256;
};
/// `token` is fresh and random: it goes to the worker with its welcome.
struct WorkerSpawned {
  WorkerId worker_id;
  Incarnation incarnation;
  std::int64_t pid;
  std::uint64_t start_ticks;
  LinkId link = 0;
  std::string token;
};
/// Who is at the other end, from the transport and not from what it says.
struct Peer {
  Origin origin = Origin::path;  // path or tls
  std::int64_t pid = 0;          // path
  std::uint64_t start_ticks = 0;
  std::string certificate_name;  // tls
};
/// A connection came in and this is its first frame. AcceptLink or RefuseLink answers.
struct WorkerDialed {
  LinkId link;
  Peer peer;
  std::string token;  // fresh and random, for one that comes the first time
  Frame frame;
  std::vector<HandleId> handles;
  std::vector<std::string> identities;  // of the handles, see memory::Segment
};
/// The process is gone, seen through its handle (or it could not be started, or an earlier one is proven gone).
struct WorkerGone {
  WorkerId worker_id;
  Incarnation incarnation;
  std::string how;         // "exit status 1", "signal 9 (Killed)", "proven gone by its lock"
  std::string last_words;  // the end of its log, for people
};
/// Its life line broke: the process is ending, though its memory is not free yet. WorkerGone follows and is the proof.
struct WorkerDying {
  WorkerId worker_id;
  Incarnation incarnation;
};
struct FrameArrived {
  WorkerId worker_id;
  Incarnation incarnation;
  Frame frame;
  std::vector<HandleId> handles;
  LinkId link = 0;
};
struct LinkClosed {
  WorkerId worker_id;
  Incarnation incarnation;
  std::string reason;
  LinkId link = 0;
};
struct TimerFired {
  std::string name;
};
/// A model folder as the disk shows it, with the layout of each component's segment (same order).
struct ScannedModel {
  model::Model model;
  std::vector<std::shared_ptr<const model::SegmentLayout>> layouts;
};
struct ModelsScanned {
  std::vector<ScannedModel> models;
  std::string problem;             // the folder itself could not be read
  std::vector<ModelId> unsettled;  // left out: their files are being written
};
struct SegmentFilled {
  ModelId model_id;
  std::string component;
  Result<std::string> sha256;
  std::string identity;  // see memory::Segment
};
/// The picture of a check was opened from the store.
struct PixelsOpened {
  JobId job_id;
  Result<HandleId> handle;
};
struct PixelsStored {
  JobId job_id;
  std::uint32_t attempt;
  Result<ImageBuffer> image;
};
/// The file of an output is gone, also when it was gone before; or the disk says why it is not.
struct OutputRemoved {
  std::string saga_id;
  std::string sha256;
  Status status;
};
struct Generate {
  static constexpr auto changes = ownership::Fact::requests;
  ReplyId reply;
  GenerateBody body;
  std::uint64_t seed;  // random, for a body without one
  bool wait;           // answer at the end; otherwise 202 at once
};
struct Check {
  static constexpr auto changes = ownership::Fact::requests;
  ReplyId reply;
  ImageBuffer source;
  bool wait;
};
struct View {
  ReplyId reply;
  std::string path;  // below /api/v1: "status", "devices", "models", "requests", "requests/<id>", "workers",
                     // "workers/<id>"; "readyz"; "v1/models"
};
struct Cancel {
  static constexpr auto changes = ownership::Fact::requests;
  ReplyId reply;
  RequestId request_id;
};
/// A person wants it started again, though it was set aside, or though it lives.
struct RestartWorker {
  static constexpr auto changes = ownership::Fact::worker_lives;
  ReplyId reply;
  WorkerId worker_id;
};
/// A person wants the device measured again, as soon as its worker is idle. wait: answer when it is.
struct CalibrateDevice {
  static constexpr auto changes = ownership::Fact::device_policies;
  ReplyId reply;
  DeviceId device_id;
  bool wait;
};
/// A person wants the model on a device, or off it; without a worker: on any, off all. Loads are taken in the order of
/// their priority, and of their arrival.
struct LoadModel {
  static constexpr auto changes = ownership::Fact::model_placement;
  ReplyId reply;
  ModelId model_id;
  WorkerId worker_id;
  bool wait;
  AllocationPriority priority = AllocationPriority::normal;
};
struct UnloadModel {
  static constexpr auto changes = ownership::Fact::model_placement;
  ReplyId reply;
  ModelId model_id;
  WorkerId worker_id;
  bool wait;
};
/// Every byte of its files is to be read again.
struct VerifyModel {
  static constexpr auto changes = ownership::Fact::model_metadata;
  ReplyId reply;
  ModelId model_id;
  bool wait;
};
struct FilesHashed {
  ModelId model_id;
  std::string component;
  Result<std::string> sha256;
};
/// A file or folder of this machine is to become a model.
struct AddModel {
  static constexpr auto changes = ownership::Fact::model_metadata;
  ReplyId reply;
  std::string path;
  std::string name;  // empty: that of the file or folder
  bool link = false;
};
struct RemoveModel {
  static constexpr auto changes = ownership::Fact::model_metadata;
  ReplyId reply;
  ModelId model_id;
  bool force = false;
};
/// A model's files came into the models folder or left it, or not; a scan went ahead of this.
struct FilesMoved {
  ReplyId reply;
  ModelId model_id;
  bool added;
  Status status;
};
/// A snapshot of the journal that begins now, or a copy of it into a new file. It changes no fact.
struct KeepJournal {
  ReplyId reply;
  std::optional<std::string> file;  // of the copy
};
/// answer: the view that tells of it, as JSON
struct JournalKept {
  ReplyId reply;
  Result<std::string> answer;
};
/// A person sets something that is governed: PUT (whole) or PATCH of a path below /api/v1 ("routing",
/// "memory/policy", "devices/<id>/config", "models/<id>/config"). The body is read by whoever owns the fact.
struct Set {
  static constexpr std::array changes{ownership::Fact::device_policies, ownership::Fact::device_registry,
                                      ownership::Fact::memory_quotas, ownership::Fact::inference_capabilities};
  ReplyId reply;
  std::string path;
  bool whole = true;
  std::string body;
};
/// The machine's RAM, as the kernel tells: of the machine, and of this process's control group where it has a limit.
/// stall: the share of the last 10 s in which every task waited for memory.
struct SystemMemory {
  Bytes total;
  Bytes available;
  std::optional<Bytes> group_limit;
  Bytes group_used;
  double stall = 0;
};
/// What may still be written to the disk of the data directory.
struct DataDisk {
  Bytes free;
};
/// What a person commands, as JSON, by its path below /api/v1.
struct Command {
  ReplyId reply;
  std::string path;
  std::string body;
};
struct CommandSession : Command {  // "sessions", "sessions/<id>/pause", resume, complete or cancel
  static constexpr auto changes = ownership::Fact::sessions;
};
struct CommandWorkflow : Command {  // "workflows", "workflows/<name>/run" or remove
  static constexpr auto changes = ownership::Fact::workflows;
};
struct TagOutput : Command {  // "outputs/<sha256>/tags"
  static constexpr auto changes = ownership::Fact::outputs;
};
struct ResolveTransaction : Command {  // "transactions/<id>/resolve"
  static constexpr auto changes = ownership::Fact::transactions;
};
struct SetSafetyPolicy : Command {  // "policies/safety"
  static constexpr auto changes = ownership::Fact::safety_policy;
};
/// Which outputs there are, filtered by its body, an OutputFilter as JSON.
struct ListOutputs {
  ReplyId reply;
  std::string body;
};
struct ReplyGone {  // the client went away
  ReplyId reply;
};
struct StopRequested {};

}  // namespace in

/// What a client calls its request, so that the same again is not another one. It comes with the inputs of people.
/// fingerprint  of the request's method, target and body
struct IdempotencyKey {
  std::string text;
  std::string fingerprint;
  ReplyId reply = 0;
};

struct Input {
  Nanos now = 0;
  WallTime wall;
  std::variant<in::Started, in::WorkerSpawned, in::WorkerDialed, in::WorkerGone, in::WorkerDying, in::FrameArrived,
               in::LinkClosed, in::TimerFired, in::ModelsScanned, in::SegmentFilled, in::PixelsOpened, in::PixelsStored,
               in::OutputRemoved, in::Generate, in::Check, in::View, in::Cancel, in::RestartWorker, in::CalibrateDevice,
               in::LoadModel, in::UnloadModel, in::VerifyModel, in::FilesHashed, in::AddModel, in::RemoveModel,
               in::FilesMoved, in::KeepJournal, in::JournalKept, in::Set, in::SystemMemory, in::DataDisk,
               in::CommandSession, in::CommandWorkflow, in::TagOutput, in::ResolveTransaction, in::SetSafetyPolicy,
               in::ListOutputs, in::ReplyGone, in::StopRequested>
      what;
  std::optional<IdempotencyKey> key = {};
};

/// The command of people at a path below /api/v1: which fact it is about is in the path's first name. §1
inline decltype(Input::what) command_at(ReplyId reply, std::string path, std::string body) {
  const in::Command command{reply, std::move(path), std::move(body)};
  if (command.path.starts_with("sessions")) return in::CommandSession{command};
  if (command.path.starts_with("workflows")) return in::CommandWorkflow{command};
  if (command.path.starts_with("outputs/")) return in::TagOutput{command};
  if (command.path.starts_with("transactions/")) return in::ResolveTransaction{command};
  return in::SetSafetyPolicy{command};
}

}  // namespace lockstep
