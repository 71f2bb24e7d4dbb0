// How workers reach the server: links that were inherited, and those that were dialed.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/check.h"
#include "base/text.h"
#include "env/real/memory_file.h"
#include "events/link_messages.h"
#include "server/driver.h"
#include "server/printable.h"
#include "server/random_id.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

constexpr Nanos hello_deadline = seconds(5);
constexpr Nanos refusal_linger = seconds(1);  // so that the sentence is read before the connection ends
// What a worker may send while the disk is busy: at three frames each heartbeat and a few reports a second this is far
// more than a minute. A worker that floods then waits in its own socket instead of in our memory.
constexpr int unreleased_max = 1000;
constexpr std::size_t strangers_max = 64;  // connections that have not been let in

}  // namespace

std::string Driver::link_path() const { return cat(config_.data_dir, "/workers.sock"); }

Status Driver::read_worker_secret() {
  const std::string path = cat(config_.data_dir, "/worker.secret");
  std::ifstream in(path);
  if (in && std::getline(in, worker_secret_) && !worker_secret_.empty()) return {};
  worker_secret_ = random_id();
  const real::Fd out(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const std::string line = worker_secret_ + "\n";
  if (!out || ::write(out.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return fail(ErrorCode::unavailable, cat("cannot write ", path, ": ", std::strerror(errno)));
  }
  return {};
}

Status Driver::open_ways_in() {
  path_listener_ = std::make_unique<real::PathListener>(
      reactor_, link_path(), [this](const real::LinkFactory& make, const real::PathPeer& who) {
        in::Peer peer;
        peer.origin = Origin::path;
        peer.pid = who.pid;
        peer.start_ticks = who.start_ticks;
        if (who.uid != ::geteuid() && who.uid != 0) {
          spdlog::warn("process {} of user {} dialed the workers' path and was turned away: it is not this user's",
                       who.pid, who.uid);
          return;
        }
        worker_dialed(make, peer);
      });
  LOCKSTEP_TRY_STATUS(path_listener_->listen());
  return config_.worker_listen.empty() ? Status{} : open_tls();
}

Status Driver::open_tls() {
  auto context = LOCKSTEP_TRY(real::TlsContext::server(config_.worker_tls));
  tls_listener_ = std::make_unique<real::TlsListener>(
      reactor_, std::move(context),
      real::TlsListener::Hooks{.arrived =
                                   [this](const real::LinkFactory& make, const real::TlsPeer& who) {
                                     in::Peer peer;
                                     peer.origin = Origin::tls;
                                     peer.certificate_name = who.certificate_name;
                                     worker_dialed(make, std::move(peer));
                                   },
                               .refused =
                                   [](const std::string& address, const std::string& why) {
                                     spdlog::warn("a connection of {} to the workers' port was refused: {}", address,
                                                  printable(why));
                                   }});
  const std::uint16_t port = LOCKSTEP_TRY(tls_listener_->listen(config_.worker_listen));
  const std::string host = config_.worker_listen.substr(0, config_.worker_listen.rfind(':'));
  spdlog::info("workers may dial tls://{}:{}", host, port);
  return {};
}

LinkId Driver::connect(const real::LinkFactory& make, in::Peer peer) {
  const LinkId id = ++links_made_;
  Connection& connection = connections_[id];
  connection.peer = std::move(peer);
  connection.lanes = std::make_unique<Lanes<std::vector<real::SharedFd>>>(counters_.lanes);
  connection.link =
      make(real::LinkHooks{.frame =
                               [this, id](Frame frame, std::vector<real::Fd> descriptors) {
                                 link_frame(id, std::move(frame), std::move(descriptors));
                               },
                           .closed = [this, id](std::string reason) { link_closed(id, std::move(reason)); },
                           .drained = [this, id] { feed(id); }});
  return id;
}

void Driver::feed(LinkId id) {
  for (;;) {
    const auto place = connections_.find(id);  // again each time: sending may find the link broken and end it
    if (place == connections_.end() || place->second.lanes->empty() || !place->second.link->takes_more()) return;
    auto leaving = place->second.lanes->pop(real::Reactor::now());
    if (!leaving) return;
    place->second.link->send(leaving->frame, std::move(leaving->cargo));
  }
}

void Driver::worker_dialed(const real::LinkFactory& make, in::Peer peer) {
  const auto strangers = std::ranges::count_if(connections_, [](const auto& each) { return !each.second.bound; });
  if (static_cast<std::size_t>(strangers) >= strangers_max) {
    spdlog::warn("a connection to the workers' path was closed: {} others have not said who they are", strangers);
    return;
  }
  const LinkId id = connect(make, std::move(peer));
  reactor_.arm(cat("hello:", id), real::Reactor::now() + hello_deadline, [this, id] {
    const auto place = connections_.find(id);
    if (place != connections_.end() && !place->second.bound) drop_link(id);
  });
}

void Driver::link_frame(LinkId id, Frame frame, std::vector<real::Fd> descriptors) {
  const auto place = connections_.find(id);
  if (place == connections_.end()) return;
  Connection& connection = place->second;
  std::vector<HandleId> handles;
  std::vector<std::string> identities;
  if (connection.bound) {
    if (++connection.unreleased >= unreleased_max) connection.link->hold(true);
    for (real::Fd& each : descriptors) handles.push_back(keep(std::move(each)));
    return input(
        in::FrameArrived{connection.worker_id, connection.incarnation, std::move(frame), std::move(handles), id});
  }
  if (connection.spoke) {  // nobody goes on before the answer to his hello
    spdlog::warn("process {} spoke on over the workers' path before it was answered", connection.peer.pid);
    return drop_link(id);
  }
  connection.spoke = true;
  for (real::Fd& each : descriptors) {
    identities.push_back(real::identity_of(each.get()));
    handles.push_back(keep(std::move(each)));
  }
  input(
      in::WorkerDialed{id, connection.peer, random_id(), std::move(frame), std::move(handles), std::move(identities)});
}

void Driver::let_links_go() {
  for (auto& [id, connection] : connections_) {
    if (std::exchange(connection.unreleased, 0) >= unreleased_max) connection.link->hold(false);
  }
}

void Driver::link_closed(LinkId id, std::string reason) {
  const auto place = connections_.find(id);
  if (place == connections_.end()) return;
  if (place->second.bound) {
    input(in::LinkClosed{place->second.worker_id, place->second.incarnation, std::move(reason), id});
  } else if (!place->second.spoke) {
    spdlog::warn("process {} dialed the workers' path and said no hello: {}", place->second.peer.pid, reason);
  }
  drop_link(id);
}

void Driver::drop_link(LinkId id) {
  const auto place = connections_.find(id);
  if (place == connections_.end()) return;
  reactor_.disarm(cat("hello:", id));
  // Later, because this may be called from inside the link.
  const auto link = std::shared_ptr<real::Link>(std::move(place->second.link));
  connections_.erase(place);
  reactor_.post([link] {});
}

void Driver::carry_out(out::AcceptLink& effect) {
  const auto place = connections_.find(effect.link);
  if (place == connections_.end()) {
    return input(in::LinkClosed{effect.worker_id, effect.incarnation, "it closed before it was answered", effect.link});
  }
  Connection& connection = place->second;
  connection.worker_id = effect.worker_id;
  connection.incarnation = effect.incarnation;
  connection.bound = true;
  reactor_.disarm(cat("hello:", effect.link));
  reactor_.disarm(cat("prove:", effect.worker_id.str()));
  const auto known = workers_.find(effect.worker_id);
  if (known != workers_.end() && known->second.incarnation == effect.incarnation) {
    if (known->second.link != effect.link) drop_link(known->second.link);
    known->second.link = effect.link;
    return;
  }
  if (connection.peer.origin == Origin::tls) {
    workers_[effect.worker_id] = Worker{};
    workers_[effect.worker_id].incarnation = effect.incarnation;
    workers_[effect.worker_id].link = effect.link;
    return;
  }
  auto process = real::adopt(connection.peer.pid, connection.peer.start_ticks);
  if (!process) return input(in::WorkerGone{effect.worker_id, effect.incarnation, process.error().message});
  watch_process(effect.worker_id, effect.incarnation, *std::move(process));
  workers_.at(effect.worker_id).link = effect.link;
}

void Driver::carry_out(out::RefuseLink& effect) {
  const auto place = connections_.find(effect.link);
  if (place == connections_.end()) return;
  place->second.link->send(effect.frame, {});
  reactor_.arm(cat("hello:", effect.link), real::Reactor::now() + refusal_linger,
               [this, id = effect.link] { drop_link(id); });
}

void Driver::carry_out(out::AdoptSegment& effect) {
  segments_[{effect.model_id, effect.component}] = handle(effect.handle);
  handles_.erase(effect.handle);
}

void Driver::watch_process(const WorkerId& id, Incarnation incarnation, real::Child child) {
  Worker& worker = workers_[id];
  worker = Worker{};
  worker.child = std::move(child);
  worker.incarnation = incarnation;
  worker.watch =
      reactor_.watch_readable(worker.child.handle.get(), [this, id, incarnation] { worker_ended(id, incarnation); });
}

}  // namespace lockstep::server
