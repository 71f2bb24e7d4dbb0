#include "server/driver.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>

#include <spdlog/spdlog.h>

#include "base/check.h"
#include "base/digest.h"
#include "base/image_header.h"
#include "base/text.h"
#include "env/real/memory_file.h"
#include "env/real/system_memory.h"
#include "http/journal_shapes.h"
#include "server/model_files.h"
#include "server/model_store.h"
#include "server/printable.h"
#include "server/random_id.h"
#include "server/recovered_events.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

constexpr int prove_tries_max = 1000;              // 10 ms apart
constexpr Nanos models_quiet = milliseconds(300);  // after the last change, before the folder is read
constexpr Nanos models_settled = seconds(2);       // a broken file younger than this may still be written
constexpr Nanos models_poll_every = seconds(10);   // where the folder cannot be watched
constexpr Nanos log_look_every = milliseconds(250);
constexpr Nanos memory_look_every = seconds(2);
constexpr Nanos disk_look_every = seconds(1);
constexpr Bytes disk_nearly_full = 16_MiB;  // with less than this the reserve is given up

}  // namespace

Driver::Driver(Config config)
    : config_(std::move(config)),
      pool_(config_.pool_threads),
      machine_(config_.core),
      outputs_(cat(config_.data_dir, "/outputs")),
      reserve_(cat(config_.data_dir, "/reserve"), config_.disk_reserve),
      logs_(cat(config_.data_dir, "/logs"), config_.worker_log_limit,
            static_cast<std::uint64_t>(real::Reactor::wall().ms)),
      disk_(std::make_unique<real::Pool>(1)) {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device()};
  random_.seed(seed);
}

Driver::~Driver() = default;

Ended Driver::run() {
  if (const Status opened = open(); !opened) return {1, opened.error().message};
  reactor_.on_signals({SIGINT, SIGTERM}, [this](int signal) {
    spdlog::info("{} received", signal == SIGINT ? "Ctrl-C" : "SIGTERM");
    input(in::StopRequested{});
  });
  bound_logs();
  sample_memory();
  sample_disk();
  input(in::Started{random_id(), sha256_hex(worker_secret_)});
  reactor_.run();
  return ended_;
}

Status Driver::open() {
  std::error_code error;
  for (const char* folder : {"", "/outputs", "/workers", "/logs"}) {
    const std::string path = cat(config_.data_dir, folder);
    fs::create_directories(path, error);
    if (error) {
      return fail(ErrorCode::unavailable, cat("cannot create the data directory ", path, ": ", error.message()));
    }
    if (::access(path.c_str(), W_OK | X_OK) != 0) {
      return fail(ErrorCode::unavailable, cat("cannot write to the data directory ", path, ": ", std::strerror(errno)));
    }
  }
  data_lock_ = LOCKSTEP_TRY(real::try_lock(cat(config_.data_dir, "/lock")));
  if (!data_lock_) {
    return fail(ErrorCode::unavailable, cat("another lockstep is using the data directory ", config_.data_dir));
  }
  // A start writes too, and may be what makes room.
  if (const auto free = real::free_on_disk(config_.data_dir); free && *free < disk_nearly_full) {
    give_up_reserve("to start");
  }
  LOCKSTEP_TRY_STATUS(outputs_.sweep());
  store_ = LOCKSTEP_TRY(SqliteStore::open(cat(config_.data_dir, "/journal.db")));
  const Recovered recovered = LOCKSTEP_TRY(store_->recover());
  const Lsn last = LOCKSTEP_TRY(machine_.recover(recovered));
  loop_ = std::make_unique<Loop<Orchestrator>>(machine_, last);
  upkeep_ = Upkeep(recovered.records.size());
  LOCKSTEP_TRY_STATUS(read_worker_secret());
  http_ = std::make_unique<http::Server>(
      reactor_, config_.http,
      http::ServerHooks{
          .submit = [this](decltype(Input::what) what,
                           std::optional<IdempotencyKey> key) { input(std::move(what), std::move(key)); },
          .random = [this] { return random_() >> 2; },
          .read_output =
              [this](std::string sha256, std::function<void(Result<std::string>)> done) {
                in_pool([this, sha256] { return outputs_.get(sha256); }, std::move(done));
              },
          .store_upload =
              [this](std::string bytes, std::function<void(Result<ImageBuffer>)> done) {
                store_upload(std::move(bytes), std::move(done));
              },
          .read_log =
              [this](WorkerId id, http::LogRequest request, std::function<void(Result<http::LogPiece>)> done) {
                // Only a worker that is known has a file; a name from outside never becomes a path.
                if (!machine_.tables().liveness.workers.contains(id.str())) {
                  return done(fail(ErrorCode::not_found, cat("there is no worker ", shortened(id.str()))));
                }
                in_pool([this, id, request] { return logs_.read(id, request); }, std::move(done));
              },
          .rev = [this] { return machine_.rev(); },
          .metrics = [this] { return metrics(); }});
  RecoveredEvents past = LOCKSTEP_TRY(recovered_events(recovered, config_.http.history.events_max));
  http_->recover_history(past.floor, std::move(past.events));
  return {};
}

void Driver::input(decltype(Input::what) what, std::optional<IdempotencyKey> key) {
  inputs_.push_back({real::Reactor::now(), real::Reactor::wall(), std::move(what), std::move(key)});
  if (pump_posted_) return;
  pump_posted_ = true;
  // Posted, so that everything that has arrived meanwhile is decided before one sync makes it durable.
  reactor_.post([this] { pump(); });
}

void Driver::pump() {
  pump_posted_ = false;
  while (!inputs_.empty()) {
    const Input next = std::move(inputs_.front());
    inputs_.pop_front();
    loop_->input(next);
  }
  sync();
}

/// What the disk does in one go, while nobody else touches the store.
struct Driver::DiskWork {
  std::vector<Record> batch;
  // Then at most one of these.
  std::optional<SnapshotPiece> piece;
  std::optional<BackupOrder> backup;
  bool tidies = false;

  Nanos took = 0;  // the batch alone
  Result<std::uint64_t> copied = 0;

  bool upkeep() const { return piece || backup || tidies; }
  Status append(Store& store) {
    const Nanos began = real::Reactor::now();
    Status status = store.append(batch);
    took = real::Reactor::now() - began;
    return status;
  }
  Status keep_up(SqliteStore& store) {
    if (piece) return store.snapshot(*piece);
    if (tidies) return store.tidy();
    copied = store.backup(backup->file);
    return {};
  }
};

void Driver::sync() {
  for (;;) {
    while (auto effect = loop_->next_effect()) {
      std::visit([this](auto& each) { carry_out(each); }, effect->what);
    }
    if (loop_->durable() == loop_->applied()) let_links_go();
    if (syncing_) return;
    auto work = std::make_shared<DiskWork>();
    work->batch = loop_->take_batch();
    upkeep_.committed(work->batch.size());
    if (!backups_.empty()) {
      work->backup = std::move(backups_.front());
      backups_.pop_front();
    } else {
      // Everything that is applied is in the batch or on disk: the rows may be taken as they are.
      work->piece = upkeep_.next(machine_, loop_->applied());
      if (!upkeep_.asked())
        std::ranges::move(std::exchange(snapshots_asked_, {}), std::back_inserter(snapshots_taken_));
      work->tidies = !work->piece && store_->untidy();
    }
    if (work->batch.empty() && !work->upkeep()) return;
    if (work->batch.size() != 1 || work->upkeep()) return on_disk(work);
    // One commit: a hand-over to another core and back would cost more than it hides.
    if (const Status status = work->append(*store_); !status) return disk_failed(status.error());
    durable(work->batch.back().lsn, 1, work->took);
  }
}

void Driver::on_disk(const std::shared_ptr<DiskWork>& work) {
  syncing_ = true;
  disk_->run([this, work] {
    if (!work->batch.empty()) {
      const Status status = work->append(*store_);
      // What waits for the batch does not wait for the upkeep.
      reactor_.post([this, work, status] {
        if (!status) return disk_failed(status.error());
        syncing_ = work->upkeep();
        durable(work->batch.back().lsn, work->batch.size(), work->took);
        sync();
      });
      if (!status) return;
    }
    if (!work->upkeep()) return;
    const Status status = work->keep_up(*store_);
    reactor_.post([this, work, status] {
      if (!status) return disk_failed(status.error());
      syncing_ = false;
      upkeep_written(*work);
      sync();
    });
  });
}

void Driver::upkeep_written(DiskWork& work) {
  const auto ms_since = [](Nanos since) { return static_cast<double>(real::Reactor::now() - since) / 1e6; };
  if (work.piece && work.piece->at) {
    ++counters_.snapshots;
    const SnapshotDone& done = upkeep_.last();
    for (const SnapshotOrder& each : std::exchange(snapshots_taken_, {})) {
      const http::SnapshotView view{Rev{done.at.value}, done.rows, done.pieces, ms_since(each.since)};
      input(in::JournalKept{each.reply, json::to_text(view)});
    }
  }
  if (!work.backup) return;
  const BackupOrder& order = *work.backup;
  if (!work.copied) return input(in::JournalKept{order.reply, std::unexpected(work.copied.error())});
  const http::BackupView view{order.file, Rev{loop_->durable().value}, *work.copied, ms_since(order.since)};
  input(in::JournalKept{order.reply, json::to_text(view)});
}

void Driver::durable(Lsn last, std::size_t commits, Nanos took) {
  counters_.sync.observe(took);
  counters_.commits += commits;
  loop_->durable(last);
}

std::string Driver::metrics() const {
  std::uint64_t journal_bytes = 0;
  for (const char* file : {"/journal.db", "/journal.db-wal"}) {
    std::error_code error;
    const std::uintmax_t size = fs::file_size(cat(config_.data_dir, file), error);
    if (!error) journal_bytes += size;
  }
  return metrics_text(
      {machine_, config_.core, counters_, http_->counters(), process_facts(), journal_bytes, real::Reactor::now()});
}

void Driver::disk_failed(const Error& error) {
  // The outcome is unknown and a second sync may lie: stop now, and let recovery read what is really there.
  spdlog::critical("{}; stopping, nothing that depends on it has been said", error.message);
  std::fflush(nullptr);
  ::_exit(70);
}

template <class Work, class Done>
void Driver::in_pool(Work work, Done done) {
  ++pool_running_;
  pool_.run([this, work = std::move(work), done = std::move(done)]() mutable {
    auto result = std::make_shared<decltype(work())>(work());
    reactor_.post([this, result, done = std::move(done)]() mutable {
      --pool_running_;
      done(std::move(*result));
    });
  });
}

std::string Driver::lock_path(const WorkerId& id) const {
  return cat(config_.data_dir, "/workers/", id.str(), ".lock");
}

void Driver::sample_memory() {
  // A machine that tells nothing has no pressure that could be acted on.
  if (const auto reading = real::read_memory()) {
    input(in::SystemMemory{reading->total, reading->available, reading->group_limit, reading->group_used,
                           reading->stall});
  }
  reactor_.arm("memory", real::Reactor::now() + memory_look_every, [this] { sample_memory(); });
}

/// What was accepted needs room for its records and images when there is none: the reserve is for that.
void Driver::give_up_reserve(std::string_view purpose) {
  if (!reserve_.give_up()) return;
  spdlog::warn("the disk of {} is full: the reserve of {} is given up {}", config_.data_dir, to_text(reserve_.size()),
               purpose);
}

void Driver::sample_disk() {
  if (const auto free = real::free_on_disk(config_.data_dir)) {
    if (*free < disk_nearly_full) {
      give_up_reserve("for what was accepted");
    } else if (*free >= config_.core.disk_low_water + reserve_.size() && !reserve_.held()) {
      if (const Status taken = reserve_.take(); !taken) spdlog::warn("{}", taken.error().message);
    }
    input(in::DataDisk{*free});
  }
  reactor_.arm("disk", real::Reactor::now() + disk_look_every, [this] { sample_disk(); });
}

void Driver::bound_logs() {
  for (const WorkerSettings& each : config_.core.workers) {
    const WorkerId id = each.worker_id;
    if (!logs_.too_long(id) || !bounding_.insert(id).second) continue;
    log_keeper_.run([this, id] {
      const std::string sentence = logs_.bound(id);
      reactor_.post([this, id, sentence] {
        bounding_.erase(id);
        if (!sentence.empty()) spdlog::info("{}", sentence);
      });
    });
  }
  reactor_.arm("logs", real::Reactor::now() + log_look_every, [this] { bound_logs(); });
}

HandleId Driver::keep(real::Fd fd) {
  handles_.emplace(++handles_made_, real::share(std::move(fd)));
  return handles_made_;
}

real::SharedFd Driver::handle(HandleId id) {
  const auto place = handles_.find(id);
  LOCKSTEP_CHECK(place != handles_.end());
  return place->second;
}

void Driver::carry_out(out::Listen&) {
  if (const Status status = http_->listen(); !status) {
    ended_ = {1, status.error().message};
    reactor_.stop();
    return;
  }
  if (const Status status = open_ways_in(); !status) {
    ended_ = {1, status.error().message};
    reactor_.stop();
    return;
  }
  spdlog::info("listening on http://{}:{}", config_.http.address, http_->port());
}

void Driver::carry_out(out::SpawnWorker& effect) {
  const WorkerId& id = effect.worker.worker_id;
  const auto refuse = [&](const std::string& why) {
    input(in::WorkerGone{id, effect.incarnation, cat("it could not be started: ", why)});
  };
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return refuse(std::strerror(errno));
  real::Fd ours(pair[0]);
  real::Fd theirs(pair[1]);
  auto lock = real::try_lock(lock_path(id));
  if (!lock) return refuse(lock.error().message);
  if (!*lock) return refuse(cat("an earlier process still holds ", lock_path(id)));
  real::SpawnRequest request;
  request.command = config_.worker_command;
  request.environment = config_.worker_environment;
  request.environment.push_back("LOCKSTEP_LINK_FD=3");
  request.environment.push_back(cat("LOCKSTEP_WORKER=", id.str()));
  request.environment.push_back(cat("LOCKSTEP_INCARNATION=", effect.incarnation.value));
  request.environment.push_back(
      cat("LOCKSTEP_DEVICE=", effect.worker.kind == device::Kind::cpu ? "cpu" : cat("cuda:", effect.worker.gpu)));
  request.link = std::move(theirs);
  request.lock = *std::move(lock);
  request.dies_with_us = config_.reconnect == 0;
  request.environment.push_back(cat("LOCKSTEP_LINK_PATH=", fs::absolute(link_path()).string()));
  request.environment.push_back(cat("LOCKSTEP_RECONNECT_S=", config_.reconnect / seconds(1)));
  request.log_path = logs_.path(id);
  std::array<real::Fd, 2> life_reads;
  for (std::size_t i = 0; i < life_reads.size(); ++i) {
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC | O_NONBLOCK) != 0) return refuse(std::strerror(errno));
    life_reads[i] = real::Fd(pipe[0]);
    request.life_lines[i] = real::Fd(pipe[1]);
  }
  auto child = real::spawn(std::move(request));
  if (!child) return refuse(child.error().message);

  const Incarnation incarnation = effect.incarnation;
  watch_process(id, incarnation, *std::move(child));
  Worker& worker = workers_.at(id);
  for (std::size_t i = 0; i < life_reads.size(); ++i) {
    worker.life_lines[i].pipe = std::move(life_reads[i]);
    worker.life_lines[i].watch = reactor_.watch_readable(worker.life_lines[i].pipe.get(),
                                                         [this, id, incarnation] { life_line_broke(id, incarnation); });
  }
  in::Peer peer;
  peer.origin = Origin::spawned;
  auto socket = std::make_shared<real::Fd>(std::move(ours));
  worker.link = connect(
      [this, socket](real::LinkHooks hooks) {
        return std::make_unique<real::FrameLink>(reactor_, std::move(*socket), std::move(hooks));
      },
      peer);
  Connection& connection = connections_.at(worker.link);
  connection.worker_id = id;
  connection.incarnation = incarnation;
  connection.bound = true;
  input(in::WorkerSpawned{id, incarnation, worker.child.pid, worker.child.start_ticks, worker.link, random_id()});
}

void Driver::forget_life_lines(Worker& worker) {
  for (Worker::LifeLine& line : worker.life_lines) {
    if (line.watch != 0) reactor_.unwatch(std::exchange(line.watch, 0));
    line.pipe.reset();
  }
}

void Driver::life_line_broke(const WorkerId& id, Incarnation incarnation) {
  const auto place = workers_.find(id);
  if (place == workers_.end() || place->second.incarnation != incarnation) return;
  forget_life_lines(place->second);
  input(in::WorkerDying{id, incarnation});
}

void Driver::worker_ended(const WorkerId& id, Incarnation incarnation) {
  const auto place = workers_.find(id);
  if (place == workers_.end() || place->second.incarnation != incarnation) return;
  reactor_.unwatch(place->second.watch);
  forget_life_lines(place->second);
  const std::string how = real::reap(place->second.child);
  // The link goes with the process: what it still had to say is about work that died with it.
  drop_link(place->second.link);
  workers_.erase(place);
  const std::string last_words = logs_.last_words(id, 5);
  if (!machine_.live().stopping) {
    spdlog::info("{} ended: {}; its last words ({}):\n{}", id.str(), how, logs_.path(id), last_words);
  }
  input(in::WorkerGone{id, incarnation, how, last_words});
}

void Driver::carry_out(out::KillWorker& effect) {
  const auto place = workers_.find(effect.worker_id);
  if (place == workers_.end() || place->second.incarnation != effect.incarnation) return;
  if (place->second.child.handle) return real::kill_child(place->second.child);
  // On another machine: it ends, or fences itself, without its link; what it did is refused by its incarnation.
  drop_link(place->second.link);
  workers_.erase(place);
  input(in::WorkerGone{effect.worker_id, effect.incarnation, "its link was closed"});
}

void Driver::carry_out(out::ProveGone& effect) { prove_gone(effect, 0); }

void Driver::prove_gone(const out::ProveGone& effect, int tries) {
  const auto here = workers_.find(effect.worker_id);
  if (here != workers_.end() && here->second.incarnation == effect.incarnation && here->second.child.handle) {
    if (effect.kill) real::kill_child(here->second.child);
    return;  // its handle tells the end
  }
  const auto gone = [&](std::string how) {
    input(in::WorkerGone{effect.worker_id, effect.incarnation, std::move(how)});
  };
  const bool runs = effect.pid > 0 && real::start_ticks_of(effect.pid) == effect.start_ticks;
  if (effect.origin == Origin::tls) {
    if (effect.kill) gone("it has been silent for longer than it may hold anything");
    return;
  }
  if (effect.origin == Origin::path) {
    if (!runs) return gone("its process is gone");
  } else if (const auto lock = real::try_lock(lock_path(effect.worker_id)); lock && *lock) {
    return gone("it ended with the earlier orchestrator (its lock is free)");  // only a living process can hold it
  }
  if (effect.kill && tries == 0 && runs) {
    spdlog::warn("{} of the earlier orchestrator still runs as process {}; ending it", effect.worker_id.str(),
                 effect.pid);
    ::kill(static_cast<pid_t>(effect.pid), SIGKILL);
  }
  if (effect.kill && tries == prove_tries_max) {
    spdlog::error("{} of the earlier orchestrator cannot be proven gone ({} is locked); its memory stays reserved",
                  effect.worker_id.str(), lock_path(effect.worker_id));
  }
  const Nanos wait = tries < prove_tries_max ? milliseconds(10) : seconds(5);
  reactor_.arm(cat("prove:", effect.worker_id.str()), real::Reactor::now() + wait,
               [this, effect, tries] { prove_gone(effect, tries + 1); });
}

void Driver::carry_out(out::SendFrame& effect) {
  const auto place = connections_.find(effect.link);
  if (place == connections_.end()) return;  // it ended meanwhile
  std::vector<real::SharedFd> descriptors;
  for (const out::Attachment& each : effect.attachments) {
    if (each.model_id.empty()) {
      descriptors.push_back(handle(each.handle));
    } else {
      const auto segment = segments_.find({each.model_id, each.component});
      LOCKSTEP_CHECK(segment != segments_.end());
      descriptors.push_back(segment->second);
    }
  }
  const Status queued = place->second.lanes->push(std::move(effect.frame), std::move(effect.passage),
                                                  std::move(descriptors), real::Reactor::now());
  if (!queued) return link_closed(effect.link, queued.error().message);
  feed(effect.link);
}

void Driver::carry_out(out::ArmTimer& effect) {
  reactor_.arm(cat("core:", effect.name), effect.deadline, [this, name = effect.name] { input(in::TimerFired{name}); });
}
void Driver::carry_out(out::DisarmTimer& effect) { reactor_.disarm(cat("core:", effect.name)); }

void Driver::carry_out(out::ScanModels&) {
  models_watch_ =
      std::make_unique<real::FolderWatch>(reactor_, config_.models_dir, [this] { rescan_soon(models_quiet); });
  watch_models();
  rescan();
}

void Driver::watch_models() {
  const Status watched = models_watch_->refresh();
  if (watched) return;
  // A folder that is not there yet, or no more watches for this user: look by the clock.
  reactor_.arm("models-poll", real::Reactor::now() + models_poll_every, [this] {
    watch_models();
    rescan();
  });
}

void Driver::rescan_soon(Nanos wait) {
  reactor_.arm("models", real::Reactor::now() + wait, [this] { rescan(); });
}

void Driver::rescan() {
  scan_again_ = scanning_;
  if (std::exchange(scanning_, true)) return;
  in_pool(
      [folder = config_.models_dir, dtype = config_.cache_dtype] { return scan_models(folder, models_settled, dtype); },
      [this](in::ModelsScanned scanned) {
        scanning_ = false;
        watch_models();  // sub-folders may be new
        if (!scanned.unsettled.empty()) rescan_soon(models_settled);
        if (std::exchange(scan_again_, false)) rescan_soon(models_quiet);
        input(std::move(scanned));
      });
}

void Driver::carry_out(out::HashFiles& effect) {
  in_pool([files = effect.files] { return hash_files(files); },
          [this, model = effect.model_id, component = effect.component](Result<std::string> sha256) {
            input(in::FilesHashed{model, component, std::move(sha256)});
          });
}

void Driver::carry_out(out::AddFiles& effect) {
  in_pool(
      [folder = config_.models_dir, dtype = config_.cache_dtype, effect] {
        Status status = add_files(folder, effect.path, effect.model_id.str(), effect.link);
        return std::pair(std::move(status), scan_models(folder, models_settled, dtype));
      },
      [this, reply = effect.reply, model = effect.model_id](std::pair<Status, in::ModelsScanned> done) {
        input(std::move(done.second));
        input(in::FilesMoved{reply, model, true, std::move(done.first)});
      });
}

void Driver::carry_out(out::RemoveFiles& effect) {
  in_pool(
      [folder = config_.models_dir, dtype = config_.cache_dtype, effect] {
        Status status = remove_files(folder, effect.path);
        return std::pair(std::move(status), scan_models(folder, models_settled, dtype));
      },
      [this, reply = effect.reply, model = effect.model_id](std::pair<Status, in::ModelsScanned> done) {
        input(std::move(done.second));
        input(in::FilesMoved{reply, model, false, std::move(done.first)});
      });
}

/// sync() goes on with it.
void Driver::carry_out(out::KeepJournal& effect) {
  if (effect.file) return backups_.push_back({real::Reactor::now(), *std::move(effect.file), effect.reply});
  upkeep_.ask();
  snapshots_asked_.push_back({real::Reactor::now(), effect.reply});
}

void Driver::carry_out(out::FillSegment& effect) {
  in_pool([effect] { return fill_segment(effect); },
          [this, model = effect.model_id, component = effect.component](Result<FilledSegment> filled) {
            if (!filled) return input(in::SegmentFilled{model, component, filled.error(), {}});
            const std::string identity = real::identity_of(filled->file.get());
            segments_[{model, component}] = real::share(std::move(filled->file));
            input(in::SegmentFilled{model, component, filled->sha256, identity});
          });
}
void Driver::carry_out(out::DropSegment& effect) { segments_.erase({effect.model_id, effect.component}); }

void Driver::carry_out(out::OpenPixels& effect) {
  in_pool(
      [this, source = effect.source]() -> Result<int> {
        const std::string bytes = LOCKSTEP_TRY(outputs_.get(source.sha256));
        return LOCKSTEP_TRY(real::make_sealed("lockstep-pixels", Bytes{bytes.size()},
                                              [&](std::span<std::uint8_t> into) -> Status {
                                                std::memcpy(into.data(), bytes.data(), bytes.size());
                                                return {};
                                              }))
            .release();
      },
      [this, job = effect.job_id](Result<int> fd) {
        if (!fd) return input(in::PixelsOpened{job, fd.error()});
        input(in::PixelsOpened{job, keep(real::Fd(*fd))});
      });
}

namespace {

/// A worker's word is not enough: the file itself says what it is. internal, or what read_image_header says.
Status is_the_image(std::string_view bytes, const ImageBuffer& expected) {
  const ImageHeader header = LOCKSTEP_TRY(read_image_header(bytes));
  if (header.format == expected.format && header.width == expected.width && header.height == expected.height) return {};
  return fail(ErrorCode::internal,
              cat("the worker announced ", expected.format, " of ", expected.width, "x", expected.height,
                  "; its file is ", header.format, " of ", header.width, "x", header.height));
}

}  // namespace

/// A disk can fill between two looks at it: no image is lost for that while there is a reserve.
Status Driver::put_output(std::string_view bytes, const std::string& sha256) {
  Status stored = outputs_.put(bytes, sha256);
  if (stored || stored.error().code != ErrorCode::resource_exhausted) return stored;
  give_up_reserve("for an output");
  return outputs_.put(bytes, sha256);  // also when another thread had just made the room
}

void Driver::carry_out(out::StorePixels& effect) {
  const real::SharedFd file = handle(effect.handle);
  handles_.erase(effect.handle);
  in_pool(
      [this, file, expected = effect.expected]() -> Result<ImageBuffer> {
        const std::string bytes = LOCKSTEP_TRY(real::read_verified(file->get(), expected.bytes, expected.sha256));
        LOCKSTEP_TRY_STATUS(is_the_image(bytes, expected));
        LOCKSTEP_TRY_STATUS(put_output(bytes, expected.sha256));
        return expected;
      },
      [this, job = effect.job_id, attempt = effect.attempt](Result<ImageBuffer> image) {
        input(in::PixelsStored{job, attempt, std::move(image)});
      });
}

void Driver::carry_out(out::RemoveOutput& effect) {
  input(in::OutputRemoved{effect.saga_id, effect.sha256, outputs_.remove(effect.sha256)});
}

void Driver::store_upload(std::string bytes, std::function<void(Result<ImageBuffer>)> done) {
  in_pool(
      [this, bytes = std::move(bytes)]() -> Result<ImageBuffer> {
        const ImageHeader header = LOCKSTEP_TRY(read_image_header(bytes));
        if (header.format != "png") {
          return fail(ErrorCode::invalid_argument, cat("the body is ", header.format, "; a check takes png"));
        }
        const ImageBuffer image{"png", header.width, header.height, bytes.size(), sha256_hex(bytes)};
        LOCKSTEP_TRY_STATUS(put_output(bytes, image.sha256));
        return image;
      },
      std::move(done));
}

void Driver::carry_out(out::DropHandle& effect) { handles_.erase(effect.handle); }
void Driver::carry_out(out::Reply& effect) { http_->reply(effect); }
void Driver::carry_out(out::ReplyImages& effect) { http_->reply_images(effect); }
void Driver::carry_out(out::Publish& effect) { http_->publish(effect); }

void Driver::carry_out(out::Log& effect) {
  if (effect.warning) {
    spdlog::warn("{}", printable(effect.text));
  } else {
    spdlog::info("{}", printable(effect.text));
  }
}

void Driver::carry_out(out::Stop& effect) {
  ended_.status = effect.jobs_left == 0 ? 0 : 9;
  ended_.message = effect.jobs_left == 0
                       ? "stopped; nothing was left to do"
                       : cat("stopped; ", effect.jobs_left, " accepted images are left and go on at the next start");
  // What `lockstep journal verify` must find again from the records alone.
  spdlog::info("journal ends at rev {}, digest {}", machine_.rev().value, machine_.digest());
  http_->stop();
  end_when_quiet(0);
}

void Driver::end_when_quiet(int tries) {
  // Answers that are being read or written still go out; a client that does not read is not waited for.
  reactor_.arm("end", real::Reactor::now() + milliseconds(20), [this, tries] {
    if (pool_running_ == 0 || tries >= 250) return reactor_.stop();
    end_when_quiet(tries + 1);
  });
}

}  // namespace lockstep::server
