#include "transactions/saga.h"

#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

std::vector<std::uint32_t> to_compensate(const SagaDefinition& saga, std::size_t done, std::size_t intents) {
  LOCKSTEP_CHECK(done <= intents);
  LOCKSTEP_CHECK(intents <= saga.steps.size());
  std::vector<std::uint32_t> out;
  for (std::size_t i = intents; i-- > 0;) {
    const StepClass step = saga.steps[i].step_class;
    if (step == StepClass::compensatable) out.push_back(static_cast<std::uint32_t>(i + 1));
    if (step == StepClass::pivot && i < done) return {};
  }
  return out;
}

std::string saga_id_of(const TransactionId& transaction) { return cat("saga_", transaction.str()); }

SagaRecord after(SagaRecord record, SagaEvent event) {
  const auto next = saga_lifecycle.next(record.state, event);
  LOCKSTEP_CHECK(next.has_value());
  record.state = *next;
  return record;
}

SagaRecord first_undone(SagaRecord record) {
  LOCKSTEP_CHECK(!record.due.empty());
  record.due.erase(record.due.begin());
  record.attempts = 0;
  record.reason.clear();
  return record.due.empty() ? after(std::move(record), SagaEvent::undone) : record;
}

SagaRecord first_not_undone(SagaRecord record, std::string reason) {
  ++record.attempts;
  if (record.attempts >= compensation_attempts_max) return parked(std::move(record), std::move(reason));
  record.reason = std::move(reason);
  return after(std::move(record), SagaEvent::not_undone);
}

SagaRecord parked(SagaRecord record, std::string reason) {
  record.reason = std::move(reason);
  return after(std::move(record), SagaEvent::given_up);
}

SagaRecord retried(SagaRecord record) {
  record.attempts = 0;
  return after(std::move(record), SagaEvent::retried);
}

Status may_carry_on(const SagaRecord& record, const SagaDefinition* known) {
  if (known == nullptr) {
    return fail(ErrorCode::invalid_transition,
                cat("it is a saga \"", shortened(record.definition), "\", which this program does not know"),
                "/definition");
  }
  if (record.version == known->version) return {};
  return fail(ErrorCode::invalid_transition,
              cat("it was begun by version ", record.version, " of ", record.definition, "; this program has version ",
                  known->version),
              "/version");
}

}  // namespace lockstep
