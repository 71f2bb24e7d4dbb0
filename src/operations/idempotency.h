#pragma once

// What was answered to a request that carried an Idempotency-Key: the same key again gets the same answer, and changes
// nothing (consistency.md §3.5).

#include <optional>
#include <string>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/units.h"
#include "state/table.h"

namespace lockstep {

/// fingerprint  of method, target and body: another one under the same key is a client's mistake
/// request_id   whose end is the answer: it is made of the request's rows, as it was the first time, and not stored
/// place        where somebody sees what is carried out for it; absent for a request, and where nothing shows it
/// status       of a stored answer; 0: there is none
struct KeyedAnswer {
  std::string fingerprint;
  WallTime created;
  std::optional<RequestId> request_id;
  bool as_url = false;  // of the request's images
  int status = 0;
  std::string body;
  std::optional<std::string> place;
};
BOOST_DESCRIBE_STRUCT(KeyedAnswer, (), (fingerprint, created, request_id, as_url, status, body, place))

/// From so many on, what has ended and is older than a day is forgotten.
inline constexpr std::size_t keyed_answers_plenty = 10'000;
/// No key is taken beyond so many, none of which may be forgotten yet.
inline constexpr std::size_t keyed_answers_max = 100'000;
inline constexpr std::int64_t keyed_answer_kept_ms = 24LL * 3600 * 1000;

struct IdempotencyTables {
  Table<KeyedAnswer> answers{"idempotency.answers"};  // key: the client's

  template <class F>
  void for_each_table(F&& f) {
    f(answers);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(answers);
  }
};

struct Tables;
/// Forgets what a client cannot come back for any more: what ended, and is older than a day.
void forget_old_answers(const Tables& tables, WallTime now, Change& change);

}  // namespace lockstep
