#pragma once

// One run of the simulator, behind sim/world.h: the clock and the queue of events, the orchestrator's host, processes,
// links, handlers and clients. Each part of the class has the .cc file that its heading names.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "domains/model/types.h"
#include "env/frame_reader.h"
#include "journal/sqlite_store.h"
#include "orchestrator/machine.h"
#include "runtime/loop.h"
#include "runtime/upkeep.h"
#include "sim/disk.h"
#include "sim/disk_vfs.h"
#include "sim/judged.h"
#include "sim/process.h"
#include "sim/random.h"
#include "sim/script.h"
#include "sim/world.h"
#include "worker/machine.h"
#include "worker/reports.h"

namespace lockstep::sim {

namespace win = worker::in;
namespace wout = worker::out;

struct SimModel {
  std::string id;
  model::Kind kind;
  Bytes bytes;
  std::vector<std::string> components;  // of equal size, but for a configuration, which no device holds
  bool single_file = false;             // it borrows the configuration of another
};

/// A request that its client asks again for, and what came of it first.
struct Keyed {
  in::Generate asked;
  std::string answer;
  std::string request;
  std::set<std::uint64_t> seeds = {};  // of every time that it was asked: a request tells by its seed whose it is
  bool mixed_up = false;               // its key was said with another request too, and may be that one's
};

/// Watts from which on the driver of every simulated device refuses a limit.
inline constexpr std::uint32_t power_allowed = 250;

class World {
 public:
  explicit World(const Options& options);
  Report run();

 private:
  // ---- time, trace, chance

  struct Event {
    Nanos time;
    std::uint64_t tie;
    std::uint64_t sequence;
    bool operator<(const Event& other) const {  // std::priority_queue wants the earliest on top
      return std::tie(time, tie, sequence) > std::tie(other.time, other.tie, other.sequence);
    }
  };

  void at(Nanos time, std::function<void()> what);
  void after(Nanos delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }

  void trace(std::string_view node, std::string_view what);
  /// Counts what was met.
  void fault(std::string_view name);
  /// A draw of chance alone.
  bool hits(Random& stream, std::uint64_t per_million);
  /// Whether this seed may meet the fault at all, by its options.
  bool allows(std::string_view name) const;
  /// Whether it may happen here and now. Asked once for each occurrence, which has a number by that.
  bool permits(std::string_view name);
  /// permits(), and counts it.
  bool meets(std::string_view name);
  bool strikes(std::string_view name, Random& stream, std::uint64_t per_million) {
    return hits(stream, per_million) && meets(name);
  }
  void violation(std::string text);
  WallTime wall(Nanos ahead) const { return {1'700'000'000'000 + (now_ + ahead) / 1'000'000}; }
  WallTime wall() const { return wall(wall_ahead_); }  // as the orchestrator sees it

  // ---- sim/orchestrator_host.cc

  void start_orchestrator();

  template <class What>
  void input(What what, std::optional<IdempotencyKey> key = {}) {
    if (!loop_) return;
    if (paused_) return when_awake([this, what = std::move(what), key = std::move(key)] { input(what, key); });
    const Lsn before = loop_->applied();
    loop_->input({now_, wall(), std::move(what), std::move(key)});
    for (std::uint64_t lsn = before.value + 1; lsn < loop_->applied().value; ++lsn) digests_.erase(lsn);
    if (loop_->applied() != before) digests_[loop_->applied().value] = machine_->digest();
    flush();
  }
  /// An input that belongs to this life of the orchestrator only.
  template <class What>
  void later(Nanos delay, What what) {
    after(delay, [this, life = life_, what] {
      if (life == life_ && loop_) input(what);
    });
  }

  void flush();

  void crash_orchestrator(const std::string& when);
  /// At once, or when the orchestrator goes on; never when it ends before.
  void when_awake(std::function<void()> what);
  /// After a crash, or a start that failed.
  void start_again();

  // ---- sim/journal.cc

  void plan_disk_faults();
  /// What the journal holds, and the store that goes on with it; nothing when the start failed.
  std::optional<Recovered> open_journal();
  void judge_recovered(Lsn last);
  /// S18: a start that ends at once is repeated by the next one, and changes nothing beside the epoch.
  void judge_starts(const Recovered& recovered);
  /// False when the orchestrator ended over it.
  bool append(const std::vector<Record>& batch);
  bool snapshot(const SnapshotPiece& piece);
  bool tidy();
  bool survives(const Status& status);
  struct Found {
    Recovered recovered;
    Lsn last;
    std::string digest;
  };
  /// What another start would find on a disk.
  Result<Found> found_on(Disk& disk);
  /// A state that there was, at the end of a unit.
  void judge_found(const Found& found, std::string_view what);
  void judge_lies();
  void judge_rot();
  void judge_log_rot();
  void judge_truncated();
  /// A damage that was seen, or did nothing.
  void judge_damaged(const Found& before, Disk& disk, std::string_view kind, const std::string& what);

  void carry_out(out::Listen&) {}
  void carry_out(out::Log&) {}
  void carry_out(out::ArmTimer& effect);
  void carry_out(out::DisarmTimer& effect) { timers_.erase(effect.name); }
  void carry_out(out::ScanModels&);
  void carry_out(out::FillSegment& effect);
  void carry_out(out::DropSegment& effect) { segments_.erase({effect.model_id.str(), effect.component}); }
  void carry_out(out::HashFiles&) { violation("it reads a model's files, and nobody had asked"); }
  void carry_out(out::AddFiles&) { violation("it adds a model, and nobody had asked"); }
  void carry_out(out::KeepJournal&) { violation("it copies its journal, and nobody had asked"); }
  void carry_out(out::RemoveFiles&) { violation("it removes a model, and nobody had asked"); }
  void carry_out(out::OpenPixels& effect);
  void carry_out(out::StorePixels& effect);
  void carry_out(out::RemoveOutput& effect);
  void carry_out(out::DropHandle& effect) { handles_.erase(effect.handle); }
  void carry_out(out::Publish& effect);
  void carry_out(out::Stop&) { violation("it stopped, and nobody had asked"); }

  HandleId keep(Content content);

  // ---- sim/processes.cc

  void carry_out(out::SpawnWorker& effect);
  void start_guest();
  template <class What>
  void input_soon(What what) {
    later(1, std::move(what));
  }

  /// Handlers speak through the interpreter: while one of them holds it, this waits.
  void when_free(std::int64_t pid, Nanos delay, std::function<void()> what);

  Process* living(std::int64_t pid);
  Process* living(const WorkerId& id);
  Process* living(const WorkerId& id, Incarnation incarnation);

  void end_process(Process& process, const std::string& how);

  template <class What>
  void worker_input(std::int64_t pid, What what) {
    Process* process = living(pid);
    if (process == nullptr) return;
    if (process->paused) {
      process->when_awake.push_back([this, pid, what = std::move(what)] { worker_input(pid, what); });
      return;
    }
    process->loop.input({process->clock.local(now_), wall(process->clock.wall_ahead), std::move(what)});
    while (process->alive) {
      auto effect = process->loop.next_effect();
      if (!effect) break;
      if (strikes("worker_crash", crashes_, 300) || ends_here(process->worker_id.str())) {
        return end_process(*process, "signal 9 (Killed)");
      }
      std::visit([&](auto& each) { carry_out(*process, each); }, effect->what);
    }
  }

  void close_at_worker(std::int64_t pid, LinkId link);

  // ---- sim/ways_in.cc

  void carry_out(Process& process, wout::Dial&) { connect(process.pid, network_.between(20'000, 2'000'000)); }
  void connect(std::int64_t pid, Nanos delay);
  void carry_out(Process& process, wout::DropLink&);
  void carry_out(Process& process, wout::KeepSegment& effect);
  void carry_out(Process& process, wout::ForgetSegments& effect);
  void carry_out(out::AcceptLink& effect);
  void carry_out(out::RefuseLink& effect);
  void carry_out(out::AdoptSegment& effect);

  void carry_out(out::KillWorker& effect);
  void judge_end(const Process& process, const std::string& why);
  void carry_out(out::ProveGone& effect);

  // ---- sim/strangers.cc

  /// Somebody who may not come in dials; nothing may change by it.
  void stranger_dials();
  void stranger_says(const std::string& kind, const std::string& expected, Hello hello, Incarnation incarnation);
  bool refused_stranger(const out::RefuseLink& effect);

  // ---- sim/ownership.cc

  /// Of a link or a life that has ended: whatever the frame says, it changes nothing.
  bool is_over(const Process& sender, const Message& message) const;
  bool would_be_heard(const Process& sender, const Message& message) const;
  /// True when this heartbeat was lost to a frame that the worker may not send.
  bool tells_of_foreign_facts(const Process& sender, const Message& message);
  /// True when it was lost to one of an earlier epoch.
  bool speaks_of_an_earlier_epoch(std::int64_t pid, const Message& message);

  // ---- sim/delivery.cc

  /// True when this answer of a worker's never leaves it.
  bool withholds_answer(const Process& sender, const Frame& frame);
  /// Who has to apply the row before others go on; nullptr when nobody waits for it.
  const Process* target_of(const Delivery& row);
  void note_told(const out::SendFrame& effect);
  void check_delivered();
  /// At rest nothing is unconfirmed, and every worker has what was set.
  bool all_told();
  void check_told();

  // ---- sim/links.cc

  Nanos arrival(Nanos& last);
  void read_bytes(LinkId link, bool at_worker, Frame& frame);
  void read_torn(LinkId link, bool at_worker, const Frame& frame);
  bool cut(Process& process, const Frame& frame, bool to_worker);
  /// The worker gives this link up after a frame that is on its way for longer than the next link takes to open.
  bool doubled(Process& process);
  void to_orchestrator(std::int64_t pid, const std::shared_ptr<Message>& message, bool first);

  void note_abort(const Frame& frame);
  void carry_out(out::SendFrame& effect);
  void deliver_to_worker(Process& process, std::shared_ptr<Message> message);
  void read_at_worker(std::int64_t pid, const std::shared_ptr<Message>& message);
  /// Puts a message into the lanes of its line; it crosses when the line is free.
  void queue(std::shared_ptr<Line>& line, std::shared_ptr<Message> message, std::int64_t pid, bool to_worker);
  void transmit(const std::shared_ptr<Line>& line, std::int64_t pid, bool to_worker);
  void cross_to_orchestrator(Process& process, const std::shared_ptr<Message>& message);
  void judge_arrival(Line& line, const Message& message);

  void carry_out(Process& process, wout::Send& effect);

  // ---- sim/handlers.cc

  void carry_out(Process& process, wout::ArmTimer& effect);
  void await_timer(const Process& process, const std::string& name, std::uint64_t number, Nanos deadline);
  void carry_out(Process& process, wout::CancelTask& effect) { process.cancelled[effect.task] = true; }
  void carry_out(Process& process, wout::DropHandle& effect) { process.handles.erase(effect.handle); }
  void carry_out(Process& process, wout::SampleTelemetry&);
  void carry_out(Process& process, wout::SetPowerLimit& effect);
  void carry_out(Process& process, wout::Calibrate& effect);
  void carry_out(Process& process, wout::Exit& effect);
  template <class What>
  void worker_input_soon(const Process& process, What what) {
    after(1, [this, pid = process.pid, what] { worker_input(pid, what); });
  }

  void carry_out(Process& process, wout::StartTask& effect);

  /// pace: the time between two reports of a slow handler
  void run_task(Process& process, const wout::StartTask& start, const std::vector<Content>& contents, Nanos duration,
                std::optional<Nanos> pace);
  void fails_to_load(Process& process, const ModelId& model);
  Bytes kept_by(Process& process) const;
  std::optional<Nanos> slowness(Process& process);
  void progress(std::int64_t pid, worker::TaskId task, Nanos delay, std::string report);
  void note_heard(Process& process, const Frame& frame);
  void remember_transaction(Process& process, const Frame& frame);
  void judge_vote(Process& process, const Frame& frame);
  void judge_decision(const out::SendFrame& effect);
  void ask_again(const std::string& key);
  void check_key(ReplyId reply, int status, const std::string& answer, const std::string& request,
                 const std::string& location);
  void check_running(const Keyed& known, const std::string& location);
  void hand_over(std::int64_t pid, worker::TaskId task, Nanos delay, const InferenceTask& image);

  // ---- sim/script.cc

  bool scripted() const { return !options_.script.empty(); }
  void plan_script();
  void act(const Act& what);
  /// The welcome of a worker that believes it has too little memory for any model.
  Frame with_little_memory(const Frame& welcome);
  /// Counts a point of a script; true when the life ends there.
  bool ends_here(const std::string& where);
  /// At a start: what is met within the next seconds are the points of the recovery.
  void watch_restart();

  // ---- sim/clients.cc

  void plan_clients();

  void operate();

  void carry_out(out::Reply& effect);
  void carry_out(out::ReplyImages& effect);

  // ---- sim/govern.cc

  void plan_governing();
  void govern();
  /// What people set ends with the faults: everything is the default again.
  void govern_no_more();
  void set(const std::string& path, bool whole, std::string body);
  void press(double share);
  void fill_disk();
  void flip_routes();
  void ask_for_memory();
  void govern_sessions();
  void coordinate();
  void calibrate();
  /// Each request of a worker has one final answer, whatever crashes between its repetitions.
  void note_answer(const out::SendFrame& effect);
  void check_governed();

  // ---- sim/faults.cc

  void plan_faults();
  /// Nothing crosses, in either direction, and nobody is told: to one worker, or to all.
  void partition();
  void cut_off(Process& process, Nanos until);

  // ---- sim/clocks.cc

  void draw_clocks();
  void plan_clocks();
  Clock clock_of(const WorkerId& node) const;
  void jump();
  void pause_worker();
  void pause(Process& process, Nanos length, bool suspended);
  void pause_orchestrator();

  // ---- sim/oracles.cc

  void check_invariants();
  /// S23: what is remembered of transactions, sagas and keys.
  void check_bounds();
  void check_end();
  void count_requests();
  /// What is true of requests at any time.
  void check_requests();
  void check_keys();
  /// Recovery at the end, twice.
  void check_recovered();
  /// The end of a run that does not heal.
  void check_record();

  // ---- sim/liveness.cc

  bool at_rest();
  bool all_answered();
  std::string unrest();
  /// The names of the sentences that a world without rest does not keep: "L1, L2: ".
  std::string unkept();
  bool is_whole();
  void check_decided();
  void check_terminal();
  void check_answered();
  void check_nothing_left();
  void check_rolled_back();

  // ---- sim/successors.cc

  void note_epoch(Epoch epoch);
  void note_incarnation(const WorkerId& worker, Incarnation incarnation, bool fresh);
  void note_saga(const CommitEvent& event);
  void note_parked(const CommitEvent& event);
  void note_rolled_back(const CommitEvent& event);
  /// A file goes only by an intent that is on disk, and only one that nobody lists.
  void judge_removal(const out::RemoveOutput& effect);
  void check_due();
  void judge_order(const SagaRecord& record);
  /// A person looks at what is parked.
  void resolve_parked(const std::string& transaction);
  /// A person does not wait for a participant.
  void overrule(const std::string& transaction);
  /// What a person was told is journaled.
  void judge_overruled(ReplyId reply, int status);

  Options options_;
  Random random_;
  Random schedule_, network_, disk_random_, handlers_, crashes_, clients_, manners_;
  Report report_;
  std::map<std::string, std::uint64_t> occurrences_;  // of what permits() was asked for
  Settings settings_;
  std::vector<SimModel> models_;

  Nanos now_ = 0;
  bool healed_ = false;
  Nanos disturbed_until_ = 0;  // frames may be late or lost, whoever sent them
  std::priority_queue<Event> events_;
  std::map<std::uint64_t, std::function<void()>> actions_;
  std::uint64_t sequence_ = 0;
  std::uint64_t trace_ = 0xCBF29CE484222325ULL;

  Random disk_faults_{options_.seed ^ 0x6469736B73ULL};
  Random clocks_{options_.seed ^ 0x636C6F636B73ULL};
  Random disk_ends_{options_.seed ^ 0x7472756E63ULL};
  std::map<WorkerId, Clock> node_clocks_;
  Nanos wall_ahead_ = 0;  // the orchestrator's
  bool paused_ = false;   // it exists, and does nothing
  std::vector<std::function<void()>> when_awake_;

  Disk disk_{disk_faults_.fork(), [this](const std::string& name) { fault(name); }};
  DiskVfs vfs_{disk_, now_};
  std::unique_ptr<SqliteStore> store_;
  Upkeep upkeep_;
  Lsn written_;                    // the newest that the store said is on disk
  std::set<Lsn> attempted_;        // where batches end that it was given since, and of which it said nothing
  std::set<std::string> outputs_;  // stored by content
  std::map<std::uint64_t, std::string> digests_;  // of the live state after each durable unit
  Lsn acknowledged_;                              // something that depends on it has left
  std::uint64_t life_ = 0;
  std::unique_ptr<Orchestrator> machine_;
  std::unique_ptr<Judged> judged_;
  std::unique_ptr<Loop<Judged>> loop_;
  bool syncing_ = false;
  std::map<std::string, std::uint64_t> timers_;
  std::uint64_t timers_made_ = 0;
  std::map<HandleId, Content> handles_;
  HandleId handles_made_ = 0;
  std::map<std::pair<std::string, std::string>, Content> segments_;
  std::uint64_t fills_made_ = 0;
  LinkId links_made_ = 0;
  Random bytes_{options_.seed ^ 0x6279746573ULL};
  std::map<std::pair<LinkId, bool>, FrameReader> readers_;  // of one connection, at the worker or here
  LanesCounters lanes_counters_;                            // of all lines
  std::map<LinkId, std::int64_t> dialed_;                   // by which process
  std::map<LinkId, std::string> strangers_;                 // what they shall be told

  std::map<std::int64_t, std::unique_ptr<Process>> processes_;
  std::int64_t pids_made_ = 1000;

  Random governors_{options_.seed ^ 0x676F7665726EULL};  // of its own, so that older seeds draw as they did
  Random tellers_{options_.seed ^ 0x74656C6C657273ULL};
  Random calibrators_{options_.seed ^ 0x63616C6962726174ULL};
  std::map<std::string, std::pair<std::uint64_t, Nanos>> told_at_;                // by worker, link, row: rev, since
  std::map<std::pair<std::int64_t, std::string>, std::uint64_t> newest_applied_;  // by pid and row
  std::map<WorkerId, Nanos> late_at_;                                             // when it was last known to be
  Nanos late_for_ = seconds(10);  // what leaves may have been decided so long ago: the longest stall of the disk
  Rev last_published_;
  std::map<std::string, std::string> final_answers_;
  std::vector<std::string> sessions_;  // in the order they were made; several may have ended
  std::map<ReplyId, std::string> waiting_replies_;
  std::map<std::string, Keyed> keyed_;         // what clients asked for under a key, and what came of it
  std::set<std::string> prepared_, decided_;   // transactions, over all lives
  std::map<ReplyId, std::string> reply_keys_;  // replies that are due, and the keys that they were asked for with
  ReplyId replies_made_ = 0;
  std::map<std::string, std::int64_t> in_doubt_;  // pid, by it and a transaction that it promised and hears no more of
  std::map<std::string, Nanos> undecided_;        // what a world without faults waits for, and since when
  Epoch epoch_;                                   // the newest of the orchestrator's
  std::uint64_t epoch_of_ = 0;                    // in which life it was seen
  std::map<WorkerId, Incarnation> incarnations_;
  std::map<std::string, SagaStatus> saga_states_;  // as they were told last
  Random sagas_{options_.seed ^ 0x7361676173ULL};
  Random epochs_{options_.seed ^ 0x65706F636873ULL};
  Random partitions_{options_.seed ^ 0x706172746974ULL};
  Random persons_{options_.seed ^ 0x706572736F6EULL};
  Random answers_{options_.seed ^ 0x616E73776572ULL};
  std::map<ReplyId, std::pair<std::string, std::string>> overruled_;  // transaction, decision: of replies that are due
  Nanos outputs_refuse_until_ = 0;     // the disk of outputs removes nothing
  std::set<std::string> rolled_back_;  // contents whose files have to go
  struct StoredAt {
    std::uint64_t number = 0;
    WallTime wall;
  };
  std::map<std::pair<std::string, std::string>, StoredAt> stored_at_;  // newest, by request and content
  std::uint64_t stored_ = 0;
  std::map<std::string, std::vector<std::string>> due_;  // of each saga in this life, as it was after the event before
  std::set<std::string> accepted_;
  std::set<std::string> aborted_;  // transactions
  int failing_loads_ = 0;          // so many come from a script
  bool refusing_ = false;          // workers believe that they have too little memory
};

}  // namespace lockstep::sim
