#include "bench/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include "journal/sqlite_store.h"
#include "state/commit.h"

namespace lockstep::bench {

Result<std::unique_ptr<ProductJournal>> ProductJournal::open(const std::string& file) {
  auto store = LOCKSTEP_TRY(SqliteStore::open(file));
  LOCKSTEP_TRY(store->recover());
  return std::unique_ptr<ProductJournal>(new ProductJournal(std::move(store)));
}

void ProductJournal::add(const Envelope& envelope, const InferenceProgress& event) {
  Commit commit;
  commit.rev = Rev{++rev_};
  commit.events.push_back({envelope.type, event.request_id, RawJson{json::to_text(event)}});
  pending_.push_back({Lsn{rev_}, encode(commit)});
}

Status ProductJournal::sync() {
  if (pending_.empty()) return {};
  Status written = store_->append(pending_);
  pending_.clear();
  return written;
}

BareJournal::BareJournal(const std::string& file)
    : file_(::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {
  const std::string zeros(1u << 20, '\0');
  for (std::size_t written = 0; written < size; written += zeros.size()) {
    if (::write(file_, zeros.data(), zeros.size()) != static_cast<ssize_t>(zeros.size())) return;
  }
  ::fsync(file_);
}

BareJournal::~BareJournal() { ::close(file_); }

bool BareJournal::append(std::string_view bytes) {
  if (at_ + bytes.size() > size) at_ = 0;
  const ssize_t written = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at_));
  at_ += bytes.size();
  return written == static_cast<ssize_t>(bytes.size()) && ::fdatasync(file_) == 0;
}

}  // namespace lockstep::bench
