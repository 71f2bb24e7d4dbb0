#include "bench/codec.h"

#include <charconv>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "bench/allocations.h"
#include "events/inference_events.h"
#include "events/json_read.h"

namespace lockstep::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view event =
    R"({"event_type":"inference_completed","request_id":"inf:req_000001_000042/00:1","result_metadata":)"
    R"({"execution_time":4.72,"total_steps_executed":30,"final_vram_usage":"8.2GB","result_quality_score":8.7},)"
    R"("result_location":"/outputs/inf_req_000001_000042_00_1.png","requires_postprocessing":true,)"
    R"("postprocessing_recommendations":["upscaling","safety_check"]})";

/// The same keys, every object's back to front.
constexpr std::string_view reordered =
    R"({"postprocessing_recommendations":["upscaling","safety_check"],"requires_postprocessing":true,)"
    R"("result_location":"/outputs/inf_req_000001_000042_00_1.png","result_metadata":{"result_quality_score":8.7,)"
    R"("final_vram_usage":"8.2GB","total_steps_executed":30,"execution_time":4.72},)"
    R"("request_id":"inf:req_000001_000042/00:1","event_type":"inference_completed"})";

/// The compiler must believe that somebody looks at it.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

/// Reads the event by hand: knows every byte that stands between the values, and checks only those.
class ByHand {
 public:
  explicit ByHand(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  bool skip(std::string_view literal) {
    if (static_cast<std::size_t>(end_ - at_) < literal.size() ||
        std::memcmp(at_, literal.data(), literal.size()) != 0) {
      return false;
    }
    at_ += literal.size();
    return true;
  }
  bool text(std::string& out) {
    const void* quote = std::memchr(at_, '"', static_cast<std::size_t>(end_ - at_));
    if (quote == nullptr) return false;
    const char* stop = static_cast<const char*>(quote);
    out.assign(at_, static_cast<std::size_t>(stop - at_));
    at_ = stop + 1;
    return true;
  }
  template <class Number>
  bool number(Number& out) {
    const auto result = std::from_chars(at_, end_, out);
    at_ = result.ptr;
    return result.ec == std::errc{};
  }

 private:
  const char* at_;
  const char* end_;
};

bool decode_by_hand(std::string_view text, PlainCompleted& out) {
  ByHand in(text);
  out.postprocessing_recommendations.resize(2);
  return in.skip(R"({"event_type":"inference_completed","request_id":")") && in.text(out.request_id) &&
         in.skip(R"(,"result_metadata":{"execution_time":)") && in.number(out.result_metadata.execution_time) &&
         in.skip(R"(,"total_steps_executed":)") && in.number(out.result_metadata.total_steps_executed) &&
         in.skip(R"(,"final_vram_usage":")") && in.text(out.result_metadata.final_vram_usage) &&
         in.skip(R"(,"result_quality_score":)") && in.number(out.result_metadata.result_quality_score) &&
         in.skip(R"(},"result_location":")") && in.text(out.result_location) &&
         in.skip(R"(,"requires_postprocessing":true)") && (out.requires_postprocessing = true) &&
         in.skip(R"(,"postprocessing_recommendations":[")") && in.text(out.postprocessing_recommendations[0]) &&
         in.skip(",\"") && in.text(out.postprocessing_recommendations[1]) && in.skip("]}");
}

void encode_by_hand(const PlainCompleted& message, std::string& out) {
  char buffer[1024];
  char* at = buffer;
  const auto put = [&](std::string_view piece) {
    std::memcpy(at, piece.data(), piece.size());
    at += piece.size();
  };
  const auto number = [&](auto value) { at = std::to_chars(at, buffer + sizeof buffer, value).ptr; };
  put(R"({"event_type":"inference_completed","request_id":")");
  put(message.request_id);
  put(R"(","result_metadata":{"execution_time":)");
  number(message.result_metadata.execution_time);
  put(R"(,"total_steps_executed":)");
  number(message.result_metadata.total_steps_executed);
  put(R"(,"final_vram_usage":")");
  put(message.result_metadata.final_vram_usage);
  put(R"(","result_quality_score":)");
  number(message.result_metadata.result_quality_score);
  put(R"(},"result_location":")");
  put(message.result_location);
  put(R"(","requires_postprocessing":)");
  put(message.requires_postprocessing ? "true" : "false");
  put(R"(,"postprocessing_recommendations":[")");
  for (std::size_t i = 0; i < message.postprocessing_recommendations.size(); ++i) {
    if (i > 0) put("\",\"");
    put(message.postprocessing_recommendations[i]);
  }
  put("\"]}");
  out.assign(buffer, static_cast<std::size_t>(at - buffer));
}

constexpr int batch = 2000;  // calls a sample: long beside the clock's own cost

template <class Work>
double ns_each(const Work& work) {
  const auto begin = Clock::now();
  for (int i = 0; i < batch; ++i) work();
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / batch;
}

/// Ours, the floor and the peer in turns, so that a slow moment of the machine meets all three.
template <class Ours, class Floor, class Peer>
Row race(std::string name, double target, int rounds, const Ours& ours, const Floor& floor, const Peer& peer) {
  std::vector<double> samples[3];
  for (int round = -2; round < rounds; ++round) {  // two to warm up
    const double each[] = {ns_each(ours), ns_each(floor), ns_each(peer)};
    for (int i = 0; i < 3 && round >= 0; ++i) samples[i].push_back(each[i]);
  }
  Row row{.name = std::move(name), .unit = "ns"};
  row.value = percentile(samples[0], 0.5);
  row.p50 = row.value;
  row.p99 = percentile(samples[0], 0.99);
  row.runs = static_cast<std::uint64_t>(rounds);
  row.floor = percentile(samples[1], 0.5);
  row.peers = Ordered<double>{{{"boost_json", percentile(samples[2], 0.5)}}};
  row.target = target;
  return row;
}

template <class Ours, class Floor, class Peer>
Row count(std::string name, double target, const Ours& ours, const Floor& floor, const Peer& peer) {
  const auto once = [](const auto& work) {
    work();  // what is kept for the next time is there now
    const std::uint64_t before = allocations();
    work();
    return static_cast<double>(allocations() - before);
  };
  Row row{.name = std::move(name), .unit = "allocations"};
  row.value = once(ours);
  row.runs = 1;
  row.floor = once(floor);
  row.peers = Ordered<double>{{{"boost_json", once(peer)}}};
  row.target = target;
  return row;
}

}  // namespace

Report codec(int rounds) {
  Report report{"codec", this_machine(), {}};
  InferenceCompleted ours;
  PlainCompleted plain;
  const PlainCompleted peer = boost_json_decode(event);
  std::string text;
  std::string plain_text;

  const auto decode = [&] {
    LOCKSTEP_CHECK(json::read_text(event, ours).has_value());
    keep(ours);
  };
  const auto decode_reordered = [&] {
    LOCKSTEP_CHECK(json::read_text(reordered, ours).has_value());
    keep(ours);
  };
  const auto decode_fresh = [&] {
    const auto message = json::from_text<InferenceCompleted>(event);
    LOCKSTEP_CHECK(message.has_value());
    keep(message);
  };
  const auto hand_decode = [&] {
    LOCKSTEP_CHECK(decode_by_hand(event, plain));
    keep(plain);
  };
  const auto hand_decode_fresh = [&] {
    PlainCompleted fresh;
    LOCKSTEP_CHECK(decode_by_hand(event, fresh));
    keep(fresh);
  };
  const auto peer_decode = [&] { keep(boost_json_decode(event)); };
  const auto encode = [&] {
    text.clear();
    json::write(text, ours);
    keep(text);
  };
  const auto encode_fresh = [&] { keep(json::to_text(ours)); };
  const auto hand_encode = [&] {
    encode_by_hand(plain, plain_text);
    keep(plain_text);
  };
  const auto hand_encode_fresh = [&] {
    std::string fresh;
    encode_by_hand(plain, fresh);
    keep(fresh);
  };
  const auto peer_encode = [&] { keep(boost_json_encode(peer)); };

  // All three do the same work, or the figures mean nothing.
  decode_reordered();
  encode();
  hand_decode();
  hand_encode();
  LOCKSTEP_CHECK(text == event);
  LOCKSTEP_CHECK(plain_text == event);
  LOCKSTEP_CHECK(peer.request_id == ours.request_id);

  report.rows.push_back(race("decode", 800, rounds, decode, hand_decode, peer_decode));
  report.rows.push_back(race("decode_into_new", 800, rounds, decode_fresh, hand_decode_fresh, peer_decode));
  report.rows.push_back(race("decode_reordered", 800, rounds, decode_reordered, hand_decode, peer_decode));
  report.rows.push_back(race("encode", 500, rounds, encode, hand_encode, peer_encode));
  report.rows.push_back(race("encode_into_new", 500, rounds, encode_fresh, hand_encode_fresh, peer_encode));
  report.rows.push_back(count("allocations_decode", 0, decode, hand_decode, peer_decode));
  // The floor of the new object is what its own strings and its list hold.
  const double held = count("", 0, hand_decode_fresh, hand_decode_fresh, peer_decode).value;
  report.rows.push_back(count("allocations_decode_into_new", held, decode_fresh, hand_decode_fresh, peer_decode));
  report.rows.push_back(count("allocations_encode", 0, encode, hand_encode, peer_encode));
  report.rows.push_back(count("allocations_encode_into_new", 1, encode_fresh, hand_encode_fresh, peer_encode));
  return report;
}

}  // namespace lockstep::bench
