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
  if (known == nullptr) return false;
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
           cat("the request of Idempotency-Key \"", shortened(key.text), "\" is still carried out; ask again shortly"));
  } else if (request->state == processing::RequestState::accepted) {
    refuse(turn, key, 409, "still_running", cat(request->request_id.str(), " is still running"),
           cat("/api/v1/requests/", request->request_id.str()));
  } else {
    reply_end(turn, key.reply, *request, known->as_url, true);
  }
  return true;
}

void keep_answer(Turn& turn, const IdempotencyKey& key) {
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
    } else {
      row.request_id = waits->first;
      row.as_url = waits->second.as_url;
    }
  }
  forget_oldest(turn.tables.idempotency, turn.change);
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
