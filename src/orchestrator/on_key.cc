#include "orchestrator/on_key.h"

#include <algorithm>

#include "base/text.h"
#include "domains/processing/rules.h"

namespace lockstep {

namespace {

struct Problem {
  std::string message;
  std::string type = "invalid_request_error";
  std::string param = "Idempotency-Key";
  std::string code;
};
BOOST_DESCRIBE_STRUCT(Problem, (), (message, type, param, code))

struct ProblemBody {
  Problem error;
};
BOOST_DESCRIBE_STRUCT(ProblemBody, (), (error))

void refuse(Turn& turn, const IdempotencyKey& key, int status, std::string code, std::string message,
            std::string location = {}) {
  const ProblemBody body{{.message = std::move(message), .code = std::move(code)}};
  turn.effect(out::Reply{key.reply, status, json::to_text(body), std::move(location)});
}

/// What a client should ask again: the next try may end otherwise.
bool is_passing(int status) { return status == 429 || status >= 500; }

const out::Reply* reply_of(const Turn& turn, ReplyId reply) {
  for (const Effect& each : turn.plan.effects) {
    const auto* answer = std::get_if<out::Reply>(&each.what);
    if (answer != nullptr && answer->reply == reply) return answer;
  }
  return nullptr;
}

}  // namespace

bool answered_by_key(Turn& turn, const IdempotencyKey& key) {
  const KeyedAnswer* known = turn.tables.idempotency.answers.find(key.text);
  if (known == nullptr) {
    const std::size_t kept = turn.tables.idempotency.answers.size();
    if (kept < keyed_answers_max) return false;
    forget_old_answers(turn.tables, turn.wall, turn.change);
    refuse(turn, key, 429, "too_many_keys",
           cat("the answers under ", kept, " keys are kept for a day each; the limit is ", keyed_answers_max));
    return true;
  }
  if (known->fingerprint != key.fingerprint) {
    refuse(
        turn, key, 422, "key_reused",
        cat("Idempotency-Key \"", shortened(key.text), "\" belongs to another request; a new request needs a new key"));
    return true;
  }
  if (known->status != 0) {
    turn.effect(out::Reply{key.reply, known->status, known->body, "", true});
    return true;
  }
  const processing::Request* request =
      known->request_id ? turn.tables.processing.requests.find(known->request_id->str()) : nullptr;
  if (request == nullptr) {
    refuse(turn, key, 409, "still_running",
           cat("the request of Idempotency-Key \"", shortened(key.text), "\" is still carried out; ask again shortly"),
           known->place.value_or(""));
  } else if (request->state == processing::RequestState::accepted) {
    refuse(turn, key, 409, "still_running", cat(request->request_id.str(), " is still running"),
           cat("/api/v1/requests/", request->request_id.str()));
  } else {
    reply_end(turn, key.reply, *request, known->as_url, true);
  }
  return true;
}

std::optional<std::string> place_of(const decltype(Input::what)& what) {
  const auto model = [](const std::string& id) { return cat("/api/v1/models/", id); };
  if (const auto* load = std::get_if<in::LoadModel>(&what)) return model(load->model_id.str());
  if (const auto* unload = std::get_if<in::UnloadModel>(&what)) return model(unload->model_id.str());
  if (const auto* verify = std::get_if<in::VerifyModel>(&what)) return model(verify->model_id.str());
  if (const auto* add = std::get_if<in::AddModel>(&what)) return model(add->name);
  if (const auto* remove = std::get_if<in::RemoveModel>(&what)) return model(remove->model_id.str());
  if (const auto* order = std::get_if<in::CalibrateDevice>(&what)) {
    return cat("/api/v1/devices/", order->device_id.str());
  }
  return std::nullopt;
}

void keep_answer(Turn& turn, const IdempotencyKey& key, std::optional<std::string> place) {
  KeyedAnswer row;
  row.fingerprint = key.fingerprint;
  row.created = turn.wall;
  if (const out::Reply* answer = reply_of(turn, key.reply)) {
    if (is_passing(answer->status)) return;
    row.status = answer->status;
    row.body = answer->body;
  } else {
    const auto waits =
        std::ranges::find_if(turn.live.waiting, [&](const auto& each) { return each.second.reply == key.reply; });
    if (waits == turn.live.waiting.end()) {
      turn.live.keyed[key.reply] = key.text;
      row.place = std::move(place);
    } else {
      row.request_id = waits->first;
      row.as_url = waits->second.as_url;
    }
  }
  // Looking at all of them for each would cost more than they do.
  const std::size_t kept = turn.tables.idempotency.answers.size();
  if (kept >= keyed_answers_plenty && kept % 1000 == 0) forget_old_answers(turn.tables, turn.wall, turn.change);
  turn.change.put(turn.tables.idempotency.answers, key.text, row);
}

void keep_late_answers(Turn& turn) {
  if (turn.live.keyed.empty()) return;
  for (const Effect& each : turn.plan.effects) {
    const auto* answer = std::get_if<out::Reply>(&each.what);
    if (answer == nullptr) continue;
    const auto keyed = turn.live.keyed.find(answer->reply);
    if (keyed == turn.live.keyed.end()) continue;
    if (const KeyedAnswer* known = turn.tables.idempotency.answers.find(keyed->second)) {
      KeyedAnswer row = *known;
      row.status = answer->status;
      row.body = answer->body;
      if (is_passing(answer->status)) {
        turn.change.erase(turn.tables.idempotency.answers, keyed->second);
      } else {
        turn.change.put(turn.tables.idempotency.answers, keyed->second, row);
      }
    }
    turn.live.keyed.erase(keyed);
  }
}

void forget_key(Turn& turn, ReplyId reply) {
  const auto keyed = turn.live.keyed.find(reply);
  if (keyed == turn.live.keyed.end()) return;
  if (turn.tables.idempotency.answers.contains(keyed->second)) {
    turn.change.erase(turn.tables.idempotency.answers, keyed->second);
  }
  turn.live.keyed.erase(keyed);
}

void forget_interrupted(Turn& turn) {
  for (const auto& [key, entry] : turn.tables.idempotency.answers.entries()) {
    if (entry.row.status == 0 && !entry.row.request_id) turn.change.erase(turn.tables.idempotency.answers, key);
  }
}

}  // namespace lockstep
