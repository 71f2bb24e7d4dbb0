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

/// The other worker: reads every event, checks it, and tells when it saw a P0.
void read_all_events(int socket, Seen& seen) {
  FrameReader reader(socket);
  while (reader.fill()) {
    while (const auto frame = reader.next()) {
      Frame whole{frame->header, std::string(frame->body)};
      const auto envelope = from_frame(whole);
      const bool good = envelope && json::from_text<InferenceProgress>(envelope->body.text).has_value();
      if (!good) seen.failed = true;
      if (frame->header.urgency == Urgency::p0_critical) seen.at.store(now_ns());
    }
  }
}

/// The orchestrator's end of the link, as the server drives it.
class Hub {
 public:
  explicit Hub(int socket)
      : lanes_(counters_),
        link_(reactor_, real::Fd(socket),
              {[](Frame, std::vector<real::Fd>) {}, [this](std::string) { reactor_.stop(); }, [this] { feed(); }}) {}

  void push(Urgency urgency) {
    Frame frame = event(urgency);
    LOCKSTEP_CHECK(lanes_.push(std::move(frame), {}, 0, real::Reactor::now()).has_value());
  }
  void feed() {
    while (link_.unsent() < real::link_low_water) {
      auto leaving = lanes_.pop(real::Reactor::now());
      if (!leaving) return;
      link_.send(leaving->frame, {});
    }
  }
  /// Lets the link work until `done`.
  template <class Done>
  void run_until(Done&& done) {
    const std::function<void()> look = [&] { done() ? reactor_.stop() : reactor_.post(look); };
    reactor_.post(look);
    reactor_.run();
  }
  std::size_t waiting() const { return lanes_.frames(); }

 private:
  LanesCounters counters_;
  Lanes<int> lanes_;
  real::Reactor reactor_;
  real::FrameLink link_;
};

}  // namespace

Result<std::vector<double>> urgent_us(int queued, int samples) {
  const Pair ends = socket_pair();
  Seen& seen = *new (shared_memory(sizeof(Seen))) Seen;
  const pid_t reader = in_process(-1, [&] {
    ::close(ends.a);
    read_all_events(ends.b, seen);
  });
  ::close(ends.b);
  if (reader < 0) return fail(ErrorCode::resource_exhausted, "no room for another process");
  std::vector<double> out;
  {
    Hub hub(ends.a);
    const auto top_up = [&] {
      while (hub.waiting() < static_cast<std::size_t>(queued)) hub.push(Urgency::p3_low);
      hub.feed();
    };
    top_up();
    for (int i = 0; i < samples && !seen.failed; ++i) {
      const std::uint64_t pause = now_ns() + 300'000;
      hub.run_until([&] { return now_ns() >= pause; });
      top_up();
      const std::uint64_t begin = now_ns();
      hub.push(Urgency::p0_critical);
      hub.feed();
      hub.run_until([&] { return seen.at.load() >= begin || seen.failed; });
      out.push_back(static_cast<double>(seen.at.load() - begin) / 1000);
    }
  }
  if (seen.failed) return fail(ErrorCode::internal, "an event arrived broken");
  LOCKSTEP_CHECK(wait_for(reader));
  return out;
}

}  // namespace lockstep::bench
