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
    outputs_.insert(picture);
    waiting_replies_[reply] = "check";
    return input(in::Check{reply, {"png", 64, 64, 1, picture}, clients_.chance(500'000)});
  }
  GenerateBody body;
  body.prompt = cat("prompt ", clients_.between(1, 20));
  body.model = clients_.chance(700'000) ? "base-a" : "base-b";
  body.n = static_cast<std::uint32_t>(clients_.between(1, 3));
  body.size = "64x64";
  body.steps = static_cast<std::uint32_t>(clients_.between(1, 6));
  if (*body.n > 1 && governors_.chance(500'000)) {
    body.error_handling = governors_.chance(700'000) ? processing::ErrorHandling::cascade_rollback
                                                     : processing::ErrorHandling::finish_others;
  }
  if (*body.n > 1 && governors_.chance(400'000)) body.batch_size = static_cast<std::uint32_t>(governors_.between(1, 4));
  if (body.batch_size && governors_.chance(100'000))
    body.vram_limit = SizeText{governors_.chance(500'000) ? "1KB" : "64GB"};
  if (!sessions_.empty() && governors_.chance(500'000)) body.session_id = sessions_.back();
  const bool bad = clients_.chance(50'000);
  if (bad) body.model = "no-such-model";
  waiting_replies_[reply] = bad ? "bad" : "generate";
  in::Generate asked{reply, body, clients_.next() >> 2, clients_.chance(500'000)};
  if (bad || !governors_.chance(300'000)) return input(asked);
  const std::string key = cat("key ", keyed_.size());
  keyed_[key] = {asked, "", "", {}};
  ask_again(key);
}

/// A client that was cut off, or waits too long, asks again under its key; one in twenty has mixed up its keys.
void World::ask_again(const std::string& key) {
  Keyed& known = keyed_.at(key);
  if (!loop_) return after(seconds(1), [this, key] { ask_again(key); });
  in::Generate asked = known.asked;
  const bool again = !waiting_replies_.contains(asked.reply) || reply_keys_.contains(asked.reply);
  if (again) {
    fault("asked_again");
    asked.reply = ++replies_made_;
    asked.seed = governors_.next() >> 2;
  }
  const bool mixed_up = again && governors_.chance(50'000);
  if (!mixed_up) known.seeds.insert(asked.seed);
  if (mixed_up) known.mixed_up = true;
  waiting_replies_[asked.reply] = mixed_up ? "mixed up" : "generate";
  reply_keys_[asked.reply] = key;
  if (hits(governors_, 500'000) && permits("asked_again")) {
    after(governors_.between(1, seconds(20)), [this, key] { ask_again(key); });
  }
  input(asked, IdempotencyKey{key, mixed_up ? "another" : key, asked.reply});
}

/// The same key, the same answer; a request that runs is not begun again.
void World::check_key(ReplyId reply, int status, const std::string& answer, const std::string& request,
                      const std::string& location) {
  const auto place = reply_keys_.find(reply);
  if (place == reply_keys_.end()) return;
  Keyed& known = keyed_.at(place->second);
  const bool mixed_up = waiting_replies_.at(reply) == "mixed up";
  reply_keys_.erase(place);
  if (mixed_up) {
    if (!known.answer.empty() && status != 422) violation("a key was used for two requests");
    return;
  }
  if (status == 422) {  // only when the request that was mixed up with it came first
    if (!known.mixed_up || !known.answer.empty()) violation(cat("S11: a request is refused its own key: ", answer));
    return;
  }
  if (status == 409 && answer.find("\"still_running\"") != std::string::npos) return check_running(known, location);
  if (status == 429 || status >= 500) return;
  if (!known.answer.empty() && known.answer != answer) violation(cat("another answer under one key: ", answer));
  if (!request.empty() && !known.request.empty() && known.request != request) {
    violation(cat(known.request, " and ", request, " are of one key"));
  }
  known.answer = answer;
  if (!request.empty()) known.request = request;
}

/// Whoever asks again while it runs is told where it runs (§3.5).
void World::check_running(const Keyed& known, const std::string& location) {
  constexpr std::string_view requests = "/api/v1/requests/";
  const bool named = location.starts_with(requests);
  const std::string id = named ? location.substr(requests.size()) : "";
  const processing::Request* request = machine_->tables().processing.requests.find(id);
  if (request == nullptr) return violation(cat("S11: it runs at \"", location, "\", where no request is"));
  if (!known.seeds.contains(request->inference.inference_parameters.seed.value_or(0))) {
    violation(cat("S11: ", id, " is another request than the one that was asked for again"));
  }
}

void World::carry_out(out::Reply& effect) {
  const auto place = waiting_replies_.find(effect.reply);
  if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
  trace("client", cat("reply ", effect.reply, " ", effect.status, " ", effect.body));
  check_key(effect.reply, effect.status, effect.body, "", effect.location);
  judge_overruled(effect.reply, effect.status);
  if (place->second == "bad" && effect.status != 404 && effect.status != 503) violation("a bad request was accepted");
  if (place->second == "session" && effect.status == 201) {
    const std::size_t begin = effect.body.find("ses_");
    sessions_.push_back(effect.body.substr(begin, effect.body.find('"', begin) - begin));
  }
  if (effect.status == 202 && place->second != "calibrate" && place->second != "place") {
    const std::size_t begin = effect.body.find("req_");
    accepted_.insert(effect.body.substr(begin, effect.body.find('"', begin) - begin));
  }
  waiting_replies_.erase(place);
}

void World::carry_out(out::ReplyImages& effect) {
  const auto place = waiting_replies_.find(effect.reply);
  if (place == waiting_replies_.end()) return violation(cat("reply ", effect.reply, " is answered twice"));
  std::string images;
  for (const out::ImageReply& each : effect.images) images += cat(each.image.sha256, " ", each.seed, "\n");
  check_key(effect.reply, 200, images, effect.request_id.str(), "");
  waiting_replies_.erase(place);
  accepted_.insert(effect.request_id.str());
  trace("client", cat("images ", effect.request_id.str()));
}

}  // namespace lockstep::sim
