#include "env/real/blob_table.h"

#include <sys/random.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::real {

std::string random_blob_name() {
  std::array<unsigned char, 16> bytes{};
  LOCKSTEP_CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  constexpr std::string_view digits = "0123456789abcdef";
  std::string name;
  for (const unsigned char byte : bytes) {
    name += digits[byte >> 4];
    name += digits[byte & 15];
  }
  return name;
}

bool is_blob_name(std::string_view text) {
  return text.size() == 32 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

void BlobTable::link_opened(const std::string& peer) { ++peers_[peer].links; }

void BlobTable::link_closed(const std::string& peer) {
  const auto place = peers_.find(peer);
  if (place != peers_.end() && --place->second.links == 0) peers_.erase(place);
}

std::string BlobTable::offer(const std::string& peer, SharedFd bytes) {
  const auto place = peers_.find(peer);
  LOCKSTEP_CHECK(place != peers_.end());
  std::string name = random_blob_name();
  place->second.offers.emplace(name, std::move(bytes));
  return name;
}

SharedFd BlobTable::offered(const std::string& peer, const std::string& name) const {
  const auto place = peers_.find(peer);
  if (place == peers_.end()) return nullptr;
  const auto offer = place->second.offers.find(name);
  return offer == place->second.offers.end() ? nullptr : offer->second;
}

void BlobTable::taken(const std::string& peer, const std::string& name) {
  const auto place = peers_.find(peer);
  if (place != peers_.end()) place->second.offers.erase(name);
}

Status BlobTable::may_put(const std::string& peer, const std::string& name, Bytes bytes) const {
  const auto place = peers_.find(peer);
  if (place == peers_.end()) return fail(ErrorCode::unavailable, cat(shortened(peer), " has no link open"));
  if (place->second.puts.contains(name)) return fail(ErrorCode::already_exists, cat("blob ", name, " was put before"));
  if (bytes > put_max) {
    return fail(ErrorCode::too_large, cat("a blob of more than ", to_text(put_max), " is not taken"));
  }
  Bytes held;
  for (const auto& [key, each] : place->second.puts) held += each.size;
  if (place->second.puts.size() >= puts_count_max || held + bytes > puts_max) {
    return fail(ErrorCode::resource_exhausted,
                cat(place->second.puts.size(), " blobs of ", to_text(held), " wait for their frames already"));
  }
  return {};
}

void BlobTable::put(const std::string& peer, const std::string& name, Fd bytes, Bytes size) {
  const auto place = peers_.find(peer);
  if (place != peers_.end()) place->second.puts.emplace(name, Put{std::move(bytes), size});
}

Result<Fd> BlobTable::claim(const std::string& peer, const std::string& name) {
  const auto place = peers_.find(peer);
  if (place != peers_.end()) {
    const auto put = place->second.puts.find(name);
    if (put != place->second.puts.end()) {
      Fd bytes = std::move(put->second.bytes);
      place->second.puts.erase(put);
      return bytes;
    }
  }
  return fail(ErrorCode::data_loss, cat("a frame names the blob ", shortened(name), ", which was not put before it"));
}

std::size_t BlobTable::size() const {
  std::size_t all = 0;
  for (const auto& [name, peer] : peers_) all += peer.offers.size() + peer.puts.size();
  return all;
}

}  // namespace lockstep::real
