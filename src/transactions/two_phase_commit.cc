#include "transactions/two_phase_commit.h"

#include "base/check.h"
#include "base/text.h"

namespace lockstep {

TransactionState after(TransactionState state, TransactionEvent event) {
  const auto next = two_phase_commit.next(state, event);
  LOCKSTEP_CHECK(next.has_value());
  return *next;
}

TransactionId transaction_id(Epoch epoch, std::uint64_t counter) {
  return TransactionId(cat("tx_", epoch.value, "_", counter));
}

}  // namespace lockstep
