// Those who may not come in: a wrong secret, a name that is taken, a return of a life that is not theirs.

#include "sim/simulation.h"

#include "base/digest.h"
#include "base/text.h"
#include "events/json_read.h"
#include "propagation/framing.h"

namespace lockstep::sim {

void World::stranger_dials() {
  if (!loop_ || paused_ || !machine_->live().started) return;
  Hello hello{WorkerId("stranger"), "sim", 7, secret, OfferedDevice{"cpu", 4_GiB}, std::nullopt};
  const WorkerRecord* present = machine_->tables().liveness.workers.find(guest.str());
  switch (manners_.between(0, 3)) {
    case 0: hello.secret = "open"; return stranger_says("stranger_wrong_secret", "the secret is", hello, {});
    case 1:
      hello.worker_id = settings_.workers.front().worker_id;
      return stranger_says("stranger_configured_name", "starts itself", hello, {});
    case 2:
      if (present == nullptr || present->state == WorkerState::gone) return;
      hello.worker_id = guest;
      return stranger_says("stranger_taken_name", "is here already", hello, {});
    default: break;
  }
  // It knows everything that is no secret: name, incarnation, cluster, epoch.
  const WorkerRecord* worker = machine_->tables().liveness.workers.find(settings_.workers.back().worker_id.str());
  if (worker == nullptr || worker->state == WorkerState::gone || worker->state == WorkerState::ending) return;
  if (machine_->live().workers.at(worker->worker_id).kill_sent) return;
  hello.worker_id = worker->worker_id;
  hello.rejoin = Rejoin{"sim-cluster", "token 0", machine_->live().epoch, {}, {}, {}};
  stranger_says("stranger_forged_return", "it is not the process of", hello, worker->incarnation);
}

void World::stranger_says(const std::string& kind, const std::string& expected, Hello hello, Incarnation incarnation) {
  if (!meets(kind)) return;
  Envelope envelope;
  envelope.id = "w0.1";
  envelope.source = {Side::worker, hello.worker_id, incarnation};
  envelope.sequence = 1;
  envelope.time = Timestamp::of(wall());
  envelope.urgency = Urgency::p1_high;
  envelope.body = RawJson{json::to_text(hello)};
  const LinkId link = ++links_made_;
  strangers_[link] = expected;
  in::Peer peer;
  peer.pid = 7;
  peer.start_ticks = 1;
  const Lsn before = loop_->applied();
  input(in::WorkerDialed{link, peer, cat("token ", link), to_frame(FrameType::hello, std::move(envelope), 0), {}, {}});
  if (loop_ && loop_->applied() != before) violation(cat(kind, " changed the state"));
}

bool World::refused_stranger(const out::RefuseLink& effect) {
  const auto place = strangers_.find(effect.link);
  if (place == strangers_.end()) return false;
  if (effect.frame.body.find(place->second) == std::string::npos) {
    violation(cat("a stranger should be told \"", place->second, "\" and was told ", effect.frame.body));
  }
  strangers_.erase(place);
  return true;
}

}  // namespace lockstep::sim
