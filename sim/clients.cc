// Requests, checks and cancellations from outside, and their answers.

#include "sim/simulation.h"

#include <iterator>

#include "base/digest.h"
#include "base/text.h"

namespace lockstep::sim {

void World::plan_clients() {
  const int count = options_.operations_min + static_cast<int>(clients_.between(0, 30));
  for (int i = 0; i < count; ++i) {
    at(clients_.between(0, options_.duration * 9 / 10), [this] { operate(); });
  }
}

void World::operate() {
  if (!loop_) return after(seconds(1), [this] { operate(); });  // nobody listens: try again, as a person would
  ++report_.operations;
  const ReplyId reply = ++replies_made_;
  if (clients_.chance(100'000) && !accepted_.empty()) {
    auto place = accepted_.begin();
    std::advance(place, clients_.between(0, static_cast<std::int64_t>(accepted_.size()) - 1));
    waiting_replies_[reply] = "cancel";
    trace("client", cat("cancel ", *place));
    return input(in::Cancel{reply, RequestId(*place)});
  }
  if (clients_.chance(100'000)) {
    const std::string picture = sha256_hex(cat("upload ", reply));
    disk_.outputs[picture] = true;
    waiting_replies_[reply] = "check";
    return input(in::Check{reply, {"png", 64, 64, 1, picture}, clients_.chance(500'000)});
  }
  GenerateBody body;
  body.prompt = cat("prompt ", clients_.between(1, 20));
  body.model = clients_.chance(700'000) ? "base-a" : "base-b";
  body.n = static_cast<std::uint32_t>(clients_.between(1, 3));
  body.size = "64x64";
  body.steps = static_cast<std::uint32_t>(clients_.between(1, 6));
  if (*body.n > 1 && governors_.chance(400'000)) body.batch_size = static_cast<std::uint32_t>(governors_.between(1, 4));
  if (body.batch_size && governors_.chance(100'000))
    body.vram_limit = SizeText{governors_.chance(500'000) ? "1KB" : "64GB"};
  if (!sessions_.empty() && governors_.chance(500'000)) body.session_id = sessions_.back();
  const bool bad = clients_.chance(50'000);
  if (bad) body.model = "no-such-model";
  waiting_replies_[reply] = bad ? "bad" : "generate";
  input(in::Generate{reply, body, clients_.next() >> 2, clients_.chance(500'000)});
}

void World::carry_out(out::Reply& effect) {
  const auto place = waiting_replies_.find(effect.reply);
  if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
  trace("client", cat("reply ", effect.reply, " ", effect.status, " ", effect.body));
  if (place->second == "bad" && effect.status != 404 && effect.status != 503) violation("a bad request was accepted");
  if (place->second == "session" && effect.status == 201) {
    const std::size_t begin = effect.body.find("ses_");
    sessions_.push_back(effect.body.substr(begin, effect.body.find('"', begin) - begin));
  }
  if (effect.status == 202) {
    const std::size_t begin = effect.body.find("req_");
    accepted_.insert(effect.body.substr(begin, effect.body.find('"', begin) - begin));
  }
  waiting_replies_.erase(place);
}

void World::carry_out(out::ReplyImages& effect) {
  const auto place = waiting_replies_.find(effect.reply);
  if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
  waiting_replies_.erase(place);
  accepted_.insert(effect.request_id.str());
  trace("client", cat("images ", effect.request_id.str()));
}

}  // namespace lockstep::sim
