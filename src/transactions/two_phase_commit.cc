#include "transactions/two_phase_commit.h"

#include "base/text.h"

namespace lockstep {

TransactionId transaction_id(Epoch epoch, std::uint64_t counter) {
  return TransactionId(cat("tx_", epoch.value, "_", counter));
}

}  // namespace lockstep
