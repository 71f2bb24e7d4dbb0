#pragma once

// The real world around the orchestrator's step: it carries effects out with sockets, processes, files and threads,
// and brings what happens back as inputs. It decides nothing. One thread (the reactor's); slow work on a pool.

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "env/real/blob_store.h"
#include "env/real/disk_space.h"
#include "env/real/folder_watch.h"
#include "env/real/frame_link.h"
#include "env/real/path_listener.h"
#include "env/real/pool.h"
#include "env/real/process.h"
#include "env/real/reactor.h"
#include "env/real/tls_listener.h"
#include "http/server.h"
#include "journal/sqlite_store.h"
#include "orchestrator/machine.h"
#include "propagation/lanes.h"
#include "runtime/loop.h"
#include "runtime/upkeep.h"
#include "server/config.h"
#include "server/metrics.h"
#include "server/worker_logs.h"

namespace lockstep::server {

/// How a run of the server ended.
struct Ended {
  int status = 0;
  std::string message;
};

class Driver {
 public:
  explicit Driver(Config config);
  ~Driver();

  /// Recovers, forces the new epoch, listens, runs until a signal; returns when everything has ended.
  Ended run();

 private:
  struct Worker {
    real::Child child;
    real::Reactor::WatchId watch = 0;
    struct LifeLine {
      real::Fd pipe;
      real::Reactor::WatchId watch = 0;
    };
    std::array<LifeLine, 2> life_lines;
    Incarnation incarnation;
    LinkId link = 0;
  };
  /// A link, and whose it is once the core has said so.
  struct Connection {
    std::unique_ptr<real::Link> link;
    std::unique_ptr<Lanes<std::vector<real::SharedFd>>> lanes;  // what the link has not been given yet
    in::Peer peer;
    WorkerId worker_id;
    Incarnation incarnation;
    bool bound = false;
    bool spoke = false;  // its first frame went to the core
    int unreleased = 0;  // frames whose effects may still wait for the disk
  };

  Status open();
  void input(decltype(Input::what) what, std::optional<IdempotencyKey> key = {});
  void pump();
  /// Carries out what is durable, and gives the disk what waits for it: the pending batch, then one piece of upkeep.
  void sync();
  struct DiskWork;
  void on_disk(const std::shared_ptr<DiskWork>& work);
  void upkeep_written(DiskWork& work);
  void durable(Lsn last, std::size_t commits, Nanos took);
  void disk_failed(const Error& error);
  void end_when_quiet(int tries);

  void carry_out(out::Listen&);
  void carry_out(out::SpawnWorker& effect);
  void carry_out(out::KillWorker& effect);
  void carry_out(out::ProveGone& effect);
  void carry_out(out::AcceptLink& effect);
  void carry_out(out::RefuseLink& effect);
  void carry_out(out::AdoptSegment& effect);
  void carry_out(out::SendFrame& effect);
  void carry_out(out::ArmTimer& effect);
  void carry_out(out::DisarmTimer& effect);
  void carry_out(out::ScanModels&);
  void carry_out(out::FillSegment& effect);
  void carry_out(out::DropSegment& effect);
  void carry_out(out::HashFiles& effect);
  void carry_out(out::AddFiles& effect);
  void carry_out(out::KeepJournal& effect);
  void carry_out(out::RemoveFiles& effect);
  void carry_out(out::OpenPixels& effect);
  void carry_out(out::StorePixels& effect);
  void carry_out(out::RemoveOutput& effect);
  void carry_out(out::DropHandle& effect);
  void carry_out(out::Reply& effect);
  void carry_out(out::ReplyImages& effect);
  void carry_out(out::Publish& effect);
  void carry_out(out::Log& effect);
  void carry_out(out::Stop& effect);

  void watch_models();
  void rescan_soon(Nanos wait);
  void rescan();
  void life_line_broke(const WorkerId& id, Incarnation incarnation);
  void forget_life_lines(Worker& worker);
  Status read_worker_secret();
  Status open_ways_in();
  Status open_tls();
  LinkId connect(const real::LinkFactory& make, in::Peer peer);
  void worker_dialed(const real::LinkFactory& make, in::Peer peer);
  void link_frame(LinkId id, Frame frame, std::vector<real::Fd> descriptors);
  void link_closed(LinkId id, std::string reason);
  void drop_link(LinkId id);
  /// Gives the link what waits for it, the most urgent first, until it has enough.
  void feed(LinkId id);
  /// Nothing waits for the disk any more: links that were held are read again.
  void let_links_go();
  void watch_process(const WorkerId& id, Incarnation incarnation, real::Child child);
  void worker_ended(const WorkerId& id, Incarnation incarnation);
  void prove_gone(const out::ProveGone& effect, int tries);
  HandleId keep(real::Fd fd);
  real::SharedFd handle(HandleId id);
  void store_upload(std::string bytes, std::function<void(Result<ImageBuffer>)> done);
  std::string lock_path(const WorkerId& id) const;
  std::string link_path() const;
  void bound_logs();
  void sample_memory();
  void sample_disk();
  /// Any thread.
  void give_up_reserve(std::string_view purpose);
  /// Pool threads. The errors of BlobStore::put.
  Status put_output(std::string_view bytes, const std::string& sha256);
  std::string metrics() const;
  /// Runs on the pool; `work` returns what `done` gets on the reactor's thread.
  template <class Work, class Done>
  void in_pool(Work work, Done done);

  Config config_;
  real::Fd data_lock_;
  real::Reactor reactor_;
  real::Pool pool_;
  std::unique_ptr<SqliteStore> store_;
  Orchestrator machine_;
  std::unique_ptr<Loop<Orchestrator>> loop_;
  std::unique_ptr<http::Server> http_;
  real::BlobStore outputs_;
  real::DiskReserve reserve_;
  WorkerLogs logs_;
  std::mt19937_64 random_;

  std::deque<Input> inputs_;
  bool pump_posted_ = false;
  bool syncing_ = false;  // the disk thread owns the store
  Upkeep upkeep_;
  /// Somebody who waits for a snapshot, since when.
  struct SnapshotOrder {
    Nanos since = 0;
    ReplyId reply = 0;
  };
  std::vector<SnapshotOrder> snapshots_asked_;  // the next one is theirs
  std::vector<SnapshotOrder> snapshots_taken_;  // the one that is being taken is theirs
  struct BackupOrder {
    Nanos since = 0;
    std::string file;
    ReplyId reply = 0;
  };
  std::deque<BackupOrder> backups_;
  DriverCounters counters_;
  std::unique_ptr<real::Pool> disk_;  // one thread

  std::map<WorkerId, Worker> workers_;
  std::map<LinkId, Connection> connections_;
  LinkId links_made_ = 0;
  std::unique_ptr<real::PathListener> path_listener_;
  std::unique_ptr<real::TlsListener> tls_listener_;
  std::string worker_secret_;
  std::map<std::pair<ModelId, std::string>, real::SharedFd> segments_;
  std::map<HandleId, real::SharedFd> handles_;
  HandleId handles_made_ = 0;
  real::Pool log_keeper_{1};     // of its own: a flooding worker must not wait for a segment that is filled
  std::set<WorkerId> bounding_;  // logs that are being cut
  std::unique_ptr<real::FolderWatch> models_watch_;
  bool scanning_ = false;
  bool scan_again_ = false;  // something changed while the scan ran
  int pool_running_ = 0;
  Ended ended_;
};

}  // namespace lockstep::server
