#include "journal/checksums.h"

#include "base/digest.h"
#include "base/text.h"

namespace lockstep {

namespace {

constexpr std::uint64_t sum_mask = ~std::uint64_t{0} >> 1;

/// SplitMix64's: a sum of the bare checksums would not see two rows that differ by the same amount up and down.
std::uint64_t mixed(std::uint32_t crc) {
  std::uint64_t z = crc + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

}  // namespace

std::uint32_t row_crc(std::string_view table, std::string_view key, std::string_view value, std::uint64_t rev) {
  return crc32c(value, crc32c(cat(table, "\n", key, "\n", rev)));
}

void RowSet::add(std::uint32_t crc) {
  ++count;
  sum = (sum + mixed(crc)) & sum_mask;
}

void RowSet::remove(std::uint32_t crc) {
  --count;
  sum = (sum - mixed(crc)) & sum_mask;
}

std::uint32_t Marks::crc() const {
  return crc32c(
      cat(snapshot_at.value, " ", snapshot_crc, " ", rows_at.value, " ", rows_crc, " ", rows.count, " ", rows.sum));
}

}  // namespace lockstep
