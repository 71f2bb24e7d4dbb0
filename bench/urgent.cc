#include "bench/urgent.h"

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>

#include "base/text.h"
#include "bench/relay.h"
#include "bench/wire.h"
#include "env/real/frame_link.h"
#include "events/json_read.h"
#include "events/json_write.h"
#include "propagation/framing.h"
#include "propagation/lanes.h"

namespace lockstep::bench {

namespace {

constexpr Incarnation of_worker{7};

struct Seen {
  std::atomic<std::uint64_t> at{0};  // when the newest P0 was read
  std::atomic<bool> failed{false};
};

Frame event(Urgency urgency) {
  InferenceProgress progress;
  progress.request_id = "inf:req_000001_000001/00:1";
  progress.execution_metrics = {12, 30, 0.21, Timestamp::of(WallTime{1'700'000'000'000})};
  progress.resource_utilization = {SizeText{"6.2GB"}, Percent{87.3}};
  Envelope envelope;
  envelope.id = "o1.1";
  envelope.source = {Side::orchestrator, WorkerId("worker_1"), of_worker};
  envelope.epoch = bench_epoch;
  envelope.urgency = urgency;
  envelope.body = RawJson{json::to_text(progress)};
  return to_frame(FrameType::inference_progress, std::move(envelope), 0);
}

/// The other worker: its end of the link reads every event, checks it, and says that it saw a P0.
void read_all_events(int socket, int answers, Seen& seen) {
  real::Reactor reactor;
  real::FrameLink link(reactor, real::Fd(socket),
                       {[&](Frame frame, std::vector<real::Fd>) {
                          const auto envelope = from_frame(frame);
                          const bool good =
                              envelope && json::from_text<InferenceProgress>(envelope->body.text).has_value();
                          if (!good) seen.failed = true;
                          if (frame.header.urgency != Urgency::p0_critical) return;
                          seen.at = now_ns();
                          LOCKSTEP_CHECK(write_all(answers, "!"));
                        },
                        [&](std::string) { reactor.stop(); }});
  reactor.run();
}

/// The orchestrator's end of the link, as the server drives it.
class Hub {
 public:
  Hub(int socket, int answers)
      : lanes_(counters_),
        link_(reactor_, real::Fd(socket),
              {[](Frame, std::vector<real::Fd>) {}, [this](std::string) { reactor_.stop(); }, [this] { feed(); }}) {
    reactor_.watch_readable(answers, [this, answers] {
      char answer = 0;
      LOCKSTEP_CHECK(read_all(answers, &answer, 1));
      reactor_.stop();
    });
  }

  /// Lets so many events of no urgency wait, and lets the link work on them for a moment.
  void fill(std::size_t events) {
    while (lanes_.frames() < events) push(Urgency::p3_low);
    feed();
    reactor_.arm("moment", real::Reactor::now() + milliseconds(1), [this] { reactor_.stop(); });
    reactor_.run();
  }
  /// Until the other worker has read it, or the link has ended.
  void send_p0() {
    push(Urgency::p0_critical);
    feed();
    reactor_.run();
  }

 private:
  void push(Urgency urgency) { LOCKSTEP_CHECK(lanes_.push(event(urgency), {}, 0, real::Reactor::now()).has_value()); }
  void feed() {
    while (!lanes_.empty() && link_.takes_more()) {
      auto leaving = lanes_.pop(real::Reactor::now());
      if (!leaving) return;
      link_.send(leaving->frame, {});
    }
  }

  LanesCounters counters_;
  Lanes<int> lanes_;
  real::Reactor reactor_;
  real::FrameLink link_;
};

}  // namespace

Result<std::vector<double>> urgent_us(Placement placement, int queued, int samples) {
  const Pair ends = socket_pair();
  const Pair answers = socket_pair();
  Seen& seen = *new (shared_memory(sizeof(Seen))) Seen;
  std::uint64_t* const took = shared<std::uint64_t>(static_cast<std::size_t>(samples));
  const pid_t reader = in_process(placement.workers, [&] {
    ::close(ends.a);
    read_all_events(ends.b, answers.b, seen);
  });
  const pid_t hub_process = in_process(placement.hub, [&] {
    ::close(ends.b);
    Hub hub(ends.a, answers.a);
    for (int i = 0; i < samples && !seen.failed; ++i) {
      hub.fill(static_cast<std::size_t>(queued));
      const std::uint64_t begin = now_ns();
      hub.send_p0();
      took[i] = seen.at - begin;
    }
  });
  for (const int each : {ends.a, ends.b}) ::close(each);
  const bool ran = wait_for_all({hub_process, reader}) && !seen.failed;
  for (const int each : {answers.a, answers.b}) ::close(each);
  if (!ran) return fail(ErrorCode::internal, "a process of the measurement failed, or an event arrived broken");
  std::vector<double> out;
  for (int i = 0; i < samples; ++i) out.push_back(static_cast<double>(took[i]) / 1000);
  return out;
}

}  // namespace lockstep::bench
