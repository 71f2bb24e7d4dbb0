#pragma once

// Strong ids: a device id is not a worker id. Text ids go in explicitly and come out by .str();
// numbers that order things (epoch, rev, lsn) are types of their own too.

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace lockstep {

template <class Tag>
class Id {
 public:
  Id() = default;
  explicit Id(std::string text) : text_(std::move(text)) {}
  explicit Id(std::string_view text) : text_(text) {}
  explicit Id(const char* text) : text_(text) {}

  const std::string& str() const { return text_; }
  bool empty() const { return text_.empty(); }
  /// Another id in the place of this one; its memory is used again.
  void assign(std::string_view text) { text_.assign(text); }

  friend auto operator<=>(const Id&, const Id&) = default;

 private:
  std::string text_;
};

template <class Tag>
struct Number {
  std::uint64_t value = 0;

  Number next() const { return Number{value + 1}; }
  friend auto operator<=>(const Number&, const Number&) = default;
};

using DeviceId = Id<struct DeviceTag>;
using WorkerId = Id<struct WorkerTag>;
using ModelId = Id<struct ModelTag>;
using RequestId = Id<struct RequestTag>;          // what a person asked for: n images
using JobId = Id<struct JobTag>;                  // one image of a request
using TransactionId = Id<struct TransactionTag>;  // "tx_<epoch>_<counter>", never used twice
using AllocationId = Id<struct AllocationTag>;

using Epoch = Number<struct EpochTag>;              // rises at every orchestrator start
using Incarnation = Number<struct IncarnationTag>;  // one life of a worker process
using Rev = Number<struct RevTag>;                  // commit order of durable state
using Lsn = Number<struct LsnTag>;                  // position in the journal

}  // namespace lockstep
