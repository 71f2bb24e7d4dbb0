#include "worker/real/runtime.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <latch>
#include <map>
#include <thread>

#include "base/check.h"
#include "base/text.h"
#include "env/real/frame_link.h"
#include "env/real/memory_file.h"
#include "env/real/path_listener.h"
#include "env/real/reactor.h"
#include "env/real/tls_client.h"
#include "events/json_read.h"
#include "events/packed.h"
#include "propagation/lanes.h"
#include "runtime/loop.h"
#include "worker/machine.h"
#include "worker/real/probe.h"
#include "worker/real/sensors.h"

namespace lockstep::worker {

namespace {

Result<std::int64_t> number_from_environment(const char* name) {
  const char* const text = std::getenv(name);
  std::int64_t number = 0;
  if (text == nullptr || std::from_chars(text, text + std::char_traits<char>::length(text), number).ec != std::errc{}) {
    return fail(ErrorCode::invalid_argument,
                cat(name, " is not set: a worker is started by lockstep serve, which passes it"));
  }
  return number;
}

/// Two threads that hold one life line each, in descriptor tables of their own, and do nothing else. A killed process
/// frees its memory before it closes its descriptors, and for one with PyTorch in it that takes 50 ms. But a thread
/// that is not the last to leave closes its own table at once, and of two threads at most one is the last: so one line
/// breaks within a millisecond of the kill.
void hold_life_lines(int first) {
  std::latch holding(2);
  std::array<std::atomic<bool>, 2> held{};
  for (int i = 0; i < 2; ++i) {
    std::thread([&holding, &mine = held[static_cast<std::size_t>(i)], line = static_cast<unsigned>(first + i)] {
      const bool apart = ::unshare(CLONE_FILES) == 0;
      if (apart) {
        ::close_range(0, line - 1, 0);
        ::close_range(line + 1, ~0u, 0);
      }
      mine = apart;
      holding.count_down();  // nothing of the caller's frame is touched after this
      if (!apart) return;
      for (;;) ::pause();
    }).detach();
  }
  holding.wait();
  for (int i = 0; i < 2; ++i) {
    if (held[static_cast<std::size_t>(i)]) ::close(first + i);  // where unshare is refused, the line breaks at the end
  }
}

}  // namespace

/// What tasks share with the runtime; it outlives both.
struct Task::Shared {
  std::shared_ptr<Runtime::State> runtime;
};

struct Runtime::State : std::enable_shared_from_this<Runtime::State> {
  explicit State(Identity identity) : machine(std::move(identity)), loop(machine, Lsn{}) {}

  real::Reactor reactor;
  Machine machine;
  Loop<Machine> loop;
  LanesCounters lanes_counters;
  std::unique_ptr<Lanes<std::vector<real::SharedFd>>> lanes;  // of the link: what it has not been given yet
  std::unique_ptr<real::Link> link;
  std::string address;                                                 // where to dial: a path
  std::unique_ptr<real::TlsDialer> dialer;                             // or another machine
  std::map<std::pair<ModelId, std::string>, real::SharedFd> segments;  // kept
  std::map<HandleId, real::Fd> handles;
  HandleId handles_made = 0;
  std::map<TaskId, std::weak_ptr<Task>> tasks;
  std::unique_ptr<Sensors> sensors;
  std::thread thread;

  std::mutex mutex;  // guards what follows
  std::condition_variable arrived;
  std::deque<std::shared_ptr<Task>> queue;

  void read_sensors(std::string device) {
    sensors = std::make_unique<Sensors>(std::move(device), [this](in::Telemetry reading) {
      reactor.post([this, reading = std::move(reading)] { input(reading); });
    });
  }

  /// A GPU's driver can take its time, or hang: the worker joins without it, and tells what it says when it says it.
  void find_capabilities() {
    sensors->probe([this](Result<DeviceCapabilityDiscovered> found) {
      if (!found) return;  // the sensors have said so: no driver, a normal state
      reactor.post([this, found = *std::move(found)] { input(in::CapabilitiesFound{found}); });
    });
  }

  HandleId keep(real::Fd fd) {
    handles.emplace(++handles_made, std::move(fd));
    return handles_made;
  }
  real::Fd take(HandleId id) {
    const auto place = handles.find(id);
    LOCKSTEP_CHECK(place != handles.end());
    real::Fd fd = std::move(place->second);
    handles.erase(place);
    return fd;
  }

  template <class What>
  void input(What what) {
    loop.input(Input{real::Reactor::now(), real::Reactor::wall(), std::move(what)});
    while (auto effect = loop.next_effect()) {
      std::visit([this](auto& each) { carry_out(each); }, effect->what);
    }
  }

  void carry_out(out::Send& send) {
    std::vector<real::SharedFd> descriptors;
    for (const HandleId id : send.handles) descriptors.push_back(real::share(take(id)));
    for (const HeldSegment& each : send.segments) descriptors.push_back(segments.at({each.model_id, each.component}));
    if (link == nullptr) return;
    const Status queued =
        lanes->push(std::move(send.frame), std::move(send.passage), std::move(descriptors), real::Reactor::now());
    if (queued) return feed();
    drop_link();
    reactor.post([this, why = queued.error().message] { input(in::LinkClosed{why}); });
  }
  /// Gives the link what waits for it, the most urgent first, until it has enough.
  void feed() {
    while (link != nullptr && !lanes->empty() && link->takes_more()) {
      auto leaving = lanes->pop(real::Reactor::now());
      if (!leaving) return;
      link->send(leaving->frame, std::move(leaving->cargo));
    }
  }
  void carry_out(out::Dial&) {
    if (dialer != nullptr) {
      return dialer->dial([this](Result<real::LinkFactory> made) {
        if (!made) return input(in::DialFailed{made.error().message});
        open_link(*made);
        input(in::LinkOpened{});
      });
    }
    auto socket = real::dial_path(address);
    // Posted: the machine hears of it after this turn.
    if (!socket) {
      return reactor.post([this, why = socket.error().message] { input(in::DialFailed{why}); });
    }
    open_link(*std::move(socket));
    reactor.post([this] { input(in::LinkOpened{}); });
  }
  void carry_out(out::DropLink&) { drop_link(); }
  void carry_out(out::KeepSegment& keep_it) {
    const int copy = ::fcntl(handles.at(keep_it.handle).get(), F_DUPFD_CLOEXEC, 3);
    LOCKSTEP_CHECK(copy >= 0);  // one descriptor: a process that has none left cannot work at all
    segments[{keep_it.model_id, keep_it.component}] = real::share(real::Fd(copy));
  }
  void carry_out(out::ForgetSegments& forget) {
    std::erase_if(segments, [&](const auto& each) { return each.first.first == forget.model_id; });
  }

  real::LinkHooks hooks() {
    return {.frame =
                [this](Frame frame, std::vector<real::Fd> descriptors) {
                  in::FrameArrived message{std::move(frame), {}};
                  for (real::Fd& each : descriptors) message.handles.push_back(keep(std::move(each)));
                  input(std::move(message));
                },
            .closed =
                [this](std::string reason) {
                  drop_link();
                  input(in::LinkClosed{std::move(reason)});
                },
            .drained = [this] { feed(); }};
  }
  void open_link(const real::LinkFactory& make) {
    lanes = std::make_unique<Lanes<std::vector<real::SharedFd>>>(lanes_counters);
    link = make(hooks());
  }
  void open_link(real::Fd socket) {
    auto shared = std::make_shared<real::Fd>(std::move(socket));
    open_link([this, shared](real::LinkHooks given) {
      return std::make_unique<real::FrameLink>(reactor, std::move(*shared), std::move(given));
    });
  }
  void drop_link() {
    // Later, because this may be called from inside the link.
    const auto old = std::shared_ptr<real::Link>(std::move(link));
    reactor.post([old] {});
  }
  void carry_out(out::StartTask& start) {
    std::shared_ptr<Task> task(new Task());
    task->id_ = start.task;
    task->kind_ = std::move(start.kind);
    task->body_ = std::move(start.body);
    for (const HandleId id : start.handles) task->descriptors_.push_back(take(id));
    task->shared_ = std::make_shared<Task::Shared>(Task::Shared{shared_from_this()});
    tasks[start.task] = task;
    const std::scoped_lock lock(mutex);
    queue.push_back(std::move(task));
    arrived.notify_one();
  }
  void carry_out(out::CancelTask& cancel) {
    const auto place = tasks.find(cancel.task);
    if (place == tasks.end()) return;
    if (const auto task = place->second.lock()) task->cancelled_.store(true, std::memory_order_relaxed);
  }
  void carry_out(out::DropHandle& drop) { take(drop.handle); }
  void carry_out(out::ArmTimer& arm) {
    reactor.arm(arm.name, arm.deadline, [this, name = arm.name] { input(in::TimerFired{name}); });
  }
  void carry_out(out::SampleTelemetry&) { sensors->sample(); }
  void carry_out(out::SetPowerLimit& order) {
    sensors->set_power_limit(order.watts, [this, number = order.number](std::string refused) {
      reactor.post([this, number, refused = std::move(refused)] { input(in::PowerLimitSet{number, refused}); });
    });
  }
  void carry_out(out::Calibrate& order) {
    sensors->probe([this, task = order.task](Result<DeviceCapabilityDiscovered> found) {
      reactor.post([this, task, found = std::move(found)] { input(in::Calibrated{task, found}); });
    });
  }
  void carry_out(out::Exit& exit) {
    std::fprintf(stderr, "lockstep worker: ending: %s\n", exit.reason.c_str());
    std::fflush(nullptr);
    // At once, whatever handlers do: an interpreter that hangs must not keep the memory.
    ::_exit(exit.status);
  }
};

Result<std::unique_ptr<Runtime>> Runtime::from_environment() {
  const int fd = static_cast<int>(LOCKSTEP_TRY(number_from_environment("LOCKSTEP_LINK_FD")));
  const std::int64_t incarnation = LOCKSTEP_TRY(number_from_environment("LOCKSTEP_INCARNATION"));
  const char* const name = std::getenv("LOCKSTEP_WORKER");
  if (name == nullptr) return fail(ErrorCode::invalid_argument, "LOCKSTEP_WORKER is not set");
  // Children of this process must not hold the link, nor the lock that proves this process alive.
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd + 1, F_SETFD, FD_CLOEXEC);
  for (const int line : {fd + 2, fd + 3}) {
    if (::fcntl(line, F_SETFD, FD_CLOEXEC) != 0) {
      return fail(ErrorCode::invalid_argument, cat("descriptor ", line, " is not the life line it should be"));
    }
  }
  hold_life_lines(fd + 2);
  Identity identity;
  identity.worker_id = WorkerId(name);
  identity.incarnation = Incarnation{static_cast<std::uint64_t>(incarnation)};
  identity.pid = ::getpid();
  identity.version = LOCKSTEP_VERSION;
  identity.schema_digest = packed::schema_digest();
  const char* const device = std::getenv("LOCKSTEP_DEVICE");
  if (device == nullptr || std::string_view(device) == "cpu") identity.capabilities = probe_processor();
  std::string address;
  if (const char* const path = std::getenv("LOCKSTEP_LINK_PATH"); path != nullptr) {
    address = path;
    identity.reconnect_limit = seconds(LOCKSTEP_TRY(number_from_environment("LOCKSTEP_RECONNECT_S")));
  }
  auto state = std::make_shared<State>(std::move(identity));
  state->address = std::move(address);
  state->open_link(real::Fd(fd));
  state->read_sensors(device == nullptr ? "cpu" : device);
  if (!state->machine.knows_capabilities()) state->find_capabilities();
  return started(std::move(state), in::LinkOpened{});
}

Result<std::unique_ptr<Runtime>> Runtime::dial(DialOptions options) {
  const auto wrong = [](std::string_view field, std::string_view what) {
    return fail(ErrorCode::invalid_argument, cat(field, " ", what));
  };
  if (options.address.empty()) {
    return wrong("address", "is empty; it is the path of the orchestrator's worker socket, or tls://host:port");
  }
  if (!is_plain_name(options.worker_id)) return wrong("worker_id", "must be letters, digits, '.', '_' and '-'");
  if (options.device != "cpu" && options.device != "cuda") return wrong("device", "must be \"cpu\" or \"cuda\"");
  if (options.memory.value == 0) return wrong("memory", "must be above 0");
  if (options.patience <= 0) return wrong("patience", "must be above 0");
  Identity identity;
  identity.worker_id = WorkerId(options.worker_id);
  identity.pid = ::getpid();
  identity.version = LOCKSTEP_VERSION;
  identity.schema_digest = packed::schema_digest();
  identity.reconnect_limit = options.patience;
  if (!options.secret.empty()) identity.secret = std::move(options.secret);
  if (options.device == "cpu") identity.capabilities = probe_processor();
  identity.device = OfferedDevice{options.device, options.memory};
  auto state = std::make_shared<State>(std::move(identity));
  constexpr std::string_view remote = "tls://";
  if (options.address.starts_with(remote)) {
    auto context = LOCKSTEP_TRY(real::TlsContext::client(options.tls));
    state->dialer =
        LOCKSTEP_TRY(real::TlsDialer::make(state->reactor, std::move(context), options.address.substr(remote.size())));
  } else {
    state->address = std::move(options.address);
  }
  state->read_sensors(options.device);
  if (!state->machine.knows_capabilities()) state->find_capabilities();
  return started(std::move(state), in::DialNow{});
}

template <class First>
std::unique_ptr<Runtime> Runtime::started(std::shared_ptr<State> state, First first) {
  state->thread = std::thread([raw = state.get(), first] {
    raw->input(first);
    raw->reactor.run();
  });
  return std::unique_ptr<Runtime>(new Runtime(std::move(state)));
}

Runtime::Runtime(std::shared_ptr<State> state) : state_(std::move(state)) {}

Runtime::~Runtime() {
  state_->reactor.stop();
  if (state_->thread.joinable()) state_->thread.join();
  state_->sensors.reset();  // a last reading is posted to a loop that runs no more
}

void Runtime::handlers_ready() {
  state_->reactor.post([raw = state_.get()] { raw->input(in::HandlersReady{}); });
}

std::shared_ptr<Task> Runtime::next_task(int timeout_ms) {
  std::unique_lock lock(state_->mutex);
  const auto there = [&] { return !state_->queue.empty(); };
  if (timeout_ms < 0) {
    state_->arrived.wait(lock, there);
  } else if (!state_->arrived.wait_for(lock, std::chrono::milliseconds(timeout_ms), there)) {
    return nullptr;
  }
  std::shared_ptr<Task> task = std::move(state_->queue.front());
  state_->queue.pop_front();
  return task;
}

void Runtime::set_allocator(AllocatorStatistics statistics) { state_->sensors->tell(statistics); }

Status Runtime::ask_memory(const std::string& body) {
  const auto request = json::from_text<MemoryAllocationRequest>(body);
  if (!request) return request.error();
  state_->reactor.post([raw = state_.get(), asked = *request] { raw->input(in::AskMemory{asked}); });
  return {};
}

Result<std::string> Runtime::coordinate(const std::string& body) {
  const auto request = LOCKSTEP_TRY(json::from_text<CrossDomainCoordination>(body));
  LOCKSTEP_TRY_STATUS(check(request));
  state_->reactor.post([raw = state_.get(), asked = request] { raw->input(in::Coordinate{asked}); });
  return coordination_id(request);
}

Status Runtime::update_reservation(const std::string& body) {
  const auto update = json::from_text<ReservationUpdate>(body);
  if (!update) return update.error();
  state_->reactor.post([raw = state_.get(), changed = *update] { raw->input(in::UpdateReservation{changed}); });
  return {};
}

std::optional<std::string> Runtime::request_answer(const std::string& request_type, const std::string& request_id) {
  std::promise<std::optional<std::string>> found;
  auto future = found.get_future();
  state_->reactor.post([raw = state_.get(), &found, name = RequestName{request_type, request_id}] {
    const auto& answers = raw->machine.request_answers();
    const auto place = answers.find(name);
    found.set_value(place == answers.end() ? std::nullopt : std::optional(json::to_text(place->second)));
  });
  return future.get();
}

Told Runtime::state() {
  std::promise<Told> told;
  auto future = told.get_future();
  state_->reactor.post([raw = state_.get(), &told] { told.set_value(raw->machine.told()); });
  return future.get();
}

Task::~Task() {
  if (!answered_.load()) failed("internal", "the handler ended without an answer");
}

Result<std::vector<real::Fd>> Task::take_descriptors() {
  for (const real::Fd& each : descriptors_) LOCKSTEP_TRY_STATUS(real::wait_sealed(each.get()));
  return std::move(descriptors_);
}

void Task::progress(std::string report) {
  {
    const std::scoped_lock lock(progress_mutex_);
    const bool waiting = progress_.has_value();
    progress_ = std::move(report);
    if (waiting) return;  // the post that is on its way takes the newer text
  }
  const auto runtime = shared_->runtime;
  runtime->reactor.post([runtime, id = id_] {
    const auto place = runtime->tasks.find(id);
    const auto task = place == runtime->tasks.end() ? nullptr : place->second.lock();
    if (task == nullptr) return;
    std::string text;
    {
      const std::scoped_lock lock(task->progress_mutex_);
      text = std::move(*task->progress_);
      task->progress_.reset();
    }
    runtime->input(in::TaskProgress{id, std::move(text)});
  });
}

void Task::part(std::string request_id, std::string report, std::vector<real::Fd> descriptors) {
  const auto runtime = shared_->runtime;
  auto fds = std::make_shared<std::vector<real::Fd>>(std::move(descriptors));
  runtime->reactor.post([runtime, id = id_, request_id = std::move(request_id), report = std::move(report), fds] {
    in::TaskPart part{id, request_id, report, {}};
    for (real::Fd& fd : *fds) part.handles.push_back(runtime->keep(std::move(fd)));
    runtime->input(std::move(part));
  });
}

void Task::done(std::string report, std::vector<real::Fd> descriptors) {
  if (answered_.exchange(true)) return;
  const auto runtime = shared_->runtime;
  auto fds = std::make_shared<std::vector<real::Fd>>(std::move(descriptors));
  runtime->reactor.post([runtime, id = id_, report = std::move(report), fds] {
    in::TaskDone done{id, report, {}};
    for (real::Fd& fd : *fds) done.handles.push_back(runtime->keep(std::move(fd)));
    runtime->tasks.erase(id);
    runtime->input(std::move(done));
  });
}

void Task::failed(std::string code, std::string message) {
  if (answered_.exchange(true)) return;
  const auto runtime = shared_->runtime;
  runtime->reactor.post([runtime, id = id_, code = std::move(code), message = std::move(message)] {
    runtime->tasks.erase(id);
    runtime->input(in::TaskFailed{id, code, message});
  });
}

}  // namespace lockstep::worker
