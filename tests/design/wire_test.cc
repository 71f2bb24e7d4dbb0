// docs/formats/wire.md: a stream has no frames. Whatever the pieces a frame comes in, it is the same frame: each type,
// with a real body and its descriptors, cut at every byte.

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/sockios.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <boost/mp11.hpp>

#include "base/text.h"
#include "env/real/frame_link.h"
#include "env/real/memory_file.h"
#include "events/json_read.h"
#include "events/json_write.h"
#include "events/message_types.h"
#include "propagation/framing.h"

namespace lockstep::design {
namespace {

struct Example {
  std::string body;
  std::size_t descriptors = 0;
};

template <class Body>
Example of(const Body& body, std::size_t descriptors = 0) {
  return {json::to_text(body), descriptors};
}

/// The specification's example of an event; nothing when there is none of this name.
std::string from_specification(const std::string& name) {
  std::ifstream file(cat(LOCKSTEP_SOURCE_DIR "/tests/examples/", name, ".json"));
  std::ostringstream text;
  text << file.rdbuf();
  const auto type = message_type_named(name);
  if (!file || !type) return {};
  const auto checked = (*type)->check(text.str());
  EXPECT_TRUE(checked.has_value()) << name;
  return checked ? checked->canonical : "";
}

/// One of each frame type: the link's own messages here, the events from the specification.
std::map<FrameType, Example> examples() {
  const TransactionId tx("tx_3_7");
  const ModelId model("tiny-sdxl");
  Hello hello{WorkerId("worker_0"), "1.0", 4711, "sesame", OfferedDevice{"cpu", 2_GiB}, std::nullopt};
  hello.rejoin = Rejoin{"cluster",
                        "token",
                        Epoch{3},
                        {{tx, model, 8_MiB, HoldingState::loaded}},
                        {{"inf:req_000001_000001/00:1", 1}},
                        {{model, "unet", std::string(64, 'a')}, {model, "vae", std::string(64, 'b')}}};
  std::map<FrameType, Example> out{
      {FrameType::hello, of(hello, 2)},
      {FrameType::welcome, of(Welcome{DeviceId("gpu_0"), 8_GiB, 2000, "cluster", "token", true})},
      {FrameType::ready, of(Ready{})},
      {FrameType::heartbeat, of(Heartbeat{7, 1})},
      {FrameType::heartbeat_ack, of(Heartbeat{})},
      {FrameType::transaction_prepare,
       of(TransactionPrepare{tx, {model, "sdxl", "/models/ü", 8_MiB, {{"unet", 4_MiB, std::string(64, 'a')}}}})},
      {FrameType::transaction_vote, of(TransactionVote{tx, Vote::vote_abort, "no room: \"8 MiB\"\n"})},
      {FrameType::transaction_commit, of(TransactionDecision{tx})},
      {FrameType::transaction_abort, of(TransactionDecision{tx})},
      {FrameType::transaction_ack, of(TransactionAck{tx})},
      {FrameType::task_cancel, of(TaskCancel{})},
      {FrameType::task_failed, of(TaskFailed{"internal", "it broke"})},
      {FrameType::model_release, of(ModelRelease{model})},
      {FrameType::request_answer, of(RequestAnswer{"memory_allocation_request", "alloc_1", RequestOutcome::granted,
                                                   GrantedReservation{AllocationId("grant_3_1"), 64_MiB, std::nullopt},
                                                   std::nullopt, std::nullopt, std::nullopt})},
      {FrameType::state_changes,
       of(StateChanges{7, true, {{"device_routing_update", "", 7, RawJson{R"({"event_type":"x","n":[1,2]})"}}}})},
      {FrameType::state_applied,
       of(StateApplied{7,
                       {{"device_config_update", "gpu_0", 7, AppliedOutcome::rejected, "no",
                         std::vector<RejectedSetting>{{"power_limit", "it needs rights"}}}}})},
      {FrameType::reservation_update, of(ReservationUpdate{AllocationId("grant_3_1"), std::nullopt})},
      {FrameType::device_calibrate, of(DeviceCalibrate{DeviceId("gpu_0")})},
      {FrameType::model_released, of(ModelReleased{model, Bytes{0}})},
      {FrameType::refused, of(Refused{"the secret is missing or wrong", false})},
  };
  const std::map<FrameType, std::size_t> riding{{FrameType::model_load_request, 3},
                                                {FrameType::inference_completed, 1},
                                                {FrameType::postprocessing_request, 1},
                                                {FrameType::postprocessing_completed, 1}};
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([&](auto each) {
    const std::string body = from_specification(each.name);
    const auto ride = riding.find(each.value);
    if (!body.empty()) out[each.value] = {body, ride == riding.end() ? 0 : ride->second};
  });
  return out;
}

Frame frame_of(FrameType type, const Example& example) {
  Envelope envelope;
  envelope.id = "w12.5";
  envelope.source = {Side::worker, WorkerId("worker_0"), Incarnation{12}};
  envelope.epoch = Epoch{3};
  envelope.sequence = 5;
  envelope.time = Timestamp::of({1'795'478'053'000});
  envelope.urgency = Urgency::p1_high;
  envelope.op_id = "inf:req_000001_000001/00:1";
  envelope.attempt = 1;
  envelope.correlation.request = RequestId("req_000001_000001");
  envelope.body = RawJson{example.body};
  return to_frame(type, std::move(envelope), example.descriptors);
}

/// One link, and a bare socket at its other end that sends the same frame again and again, each time cut one byte
/// later.
class Wire {
 public:
  Wire(const Frame& frame, std::size_t descriptors) : sent_(frame), descriptors_(descriptors) {
    const auto header = encode_header(frame.header);
    bytes_ = std::string(reinterpret_cast<const char*>(header.data()), header.size()) + frame.body;
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    raw_ = real::Fd(ends[1]);
    link_ = std::make_unique<real::FrameLink>(
        reactor_, real::Fd(ends[0]),
        real::LinkHooks{
            .frame = [this](const Frame& got, const std::vector<real::Fd>& riding) { compare(got, riding); },
            .closed =
                [this](const std::string& why) {
                  ADD_FAILURE() << "cut at " << cut_ << ": " << why;
                  reactor_.stop();
                }});
  }

  /// How many cuts gave the same frame.
  std::size_t run() {
    reactor_.post([this] { first_piece(); });
    reactor_.arm("hang", real::Reactor::now() + seconds(60), [this] {
      ADD_FAILURE() << "no frame came; cut at " << cut_;
      reactor_.stop();
    });
    reactor_.run();
    return same_;
  }

 private:
  void first_piece() {
    complete_ = false;
    piece(bytes_.substr(0, cut_), descriptors_);  // they ride with the first byte
    second_piece();
  }
  void second_piece() {
    int unread = 0;
    ASSERT_EQ(::ioctl(raw_.get(), SIOCOUTQ, &unread), 0);
    if (unread > 0) return reactor_.post([this] { second_piece(); });  // the first one was not read yet
    complete_ = true;
    piece(bytes_.substr(cut_), 0);
  }
  void compare(const Frame& got, const std::vector<real::Fd>& riding) {
    EXPECT_TRUE(complete_) << "half a frame was delivered, cut at " << cut_;
    if (got.header == sent_.header && got.body == sent_.body && riding.size() == descriptors_) ++same_;
    if (++cut_ == bytes_.size()) return reactor_.stop();
    reactor_.post([this] { first_piece(); });
  }
  void piece(std::string bytes, std::size_t descriptors) {
    iovec part{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
    if (descriptors > 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors);
      cmsghdr* const head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof(int) * descriptors);
      for (std::size_t i = 0; i < descriptors; ++i) {
        const int fd = raw_.get();
        std::memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof fd);
      }
    }
    EXPECT_EQ(::sendmsg(raw_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  const Frame& sent_;
  std::size_t descriptors_;
  std::string bytes_;
  real::Reactor reactor_;
  real::Fd raw_;
  std::unique_ptr<real::FrameLink> link_;
  std::size_t cut_ = 1;
  std::size_t same_ = 0;
  bool complete_ = false;
};

TEST(Design_wire, every_frame_type_has_a_body_here) {
  const auto have = examples();
  boost::mp11::mp_for_each<boost::describe::describe_enumerators<FrameType>>([&](auto each) {
    const auto place = have.find(each.value);
    ASSERT_NE(place, have.end()) << each.name << " is not tested on the wire";
    const auto type = message_type_named(each.name);
    if (!type) return;  // the link's own
    EXPECT_TRUE((*type)->check(place->second.body).has_value()) << each.name;
  });
}

TEST(Design_wire, every_frame_type_cut_at_every_byte_is_the_same_frame) {
  for (const auto& [type, example] : examples()) {
    const Frame frame = frame_of(type, example);
    const std::size_t size = frame_header_size + frame.body.size();
    EXPECT_GT(frame.body.size(), 200u) << json::enum_name(type);
    EXPECT_EQ(Wire(frame, example.descriptors).run(), size - 1) << json::enum_name(type);
    const auto envelope = from_frame(frame);
    ASSERT_TRUE(envelope.has_value()) << envelope.error().message;
    EXPECT_EQ(envelope->body.text, example.body) << json::enum_name(type);
  }
}

}  // namespace
}  // namespace lockstep::design
