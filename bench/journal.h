#pragma once

// The two journals of the durable rows: the server's, and the least that keeps bytes.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "events/envelope.h"
#include "events/inference_events.h"
#include "journal/store.h"

namespace lockstep::bench {

/// The server's own store; each event is a commit with that event, as the loop would append it.
class ProductJournal {
 public:
  static Result<std::unique_ptr<ProductJournal>> open(const std::string& file);
  void add(const Envelope& envelope, const InferenceProgress& event);
  /// Everything added, as one sync.
  Status sync();

 private:
  explicit ProductJournal(std::unique_ptr<Store> store) : store_(std::move(store)) {}
  std::unique_ptr<Store> store_;
  std::vector<Record> pending_;
  std::uint64_t rev_ = 0;
};

/// Overwrites a file of zeros from its begin, again and again: no size changes, so a sync is only a sync.
class BareJournal {
 public:
  explicit BareJournal(const std::string& file);
  ~BareJournal();
  BareJournal(const BareJournal&) = delete;
  BareJournal& operator=(const BareJournal&) = delete;
  /// True when the bytes are on disk.
  bool append(std::string_view bytes);

 private:
  static constexpr std::size_t size = 8u << 20;
  int file_ = -1;
  std::size_t at_ = 0;
};

}  // namespace lockstep::bench
