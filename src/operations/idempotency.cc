#include "operations/idempotency.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lockstep {

void forget_oldest(const IdempotencyTables& tables, Change& change) {
  if (tables.answers.size() < keyed_answers_max) return;
  std::vector<std::pair<WallTime, std::string>> by_age;
  for (const auto& [key, entry] : tables.answers.entries()) by_age.emplace_back(entry.row.created, key);
  std::ranges::sort(by_age);
  for (std::size_t i = 0; i < keyed_answers_max / 10; ++i) change.erase(tables.answers, by_age[i].second);
}

}  // namespace lockstep
