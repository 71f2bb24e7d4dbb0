#include "journal/sqlite_rows.h"

#include <lz4.h>

#include <algorithm>

#include "base/check.h"
#include "base/digest.h"
#include "base/text.h"

namespace lockstep {

namespace {

constexpr char separator = '\x1E';  // RFC 7464; no JSON text has one
constexpr std::size_t joined_max = 256u << 10;
constexpr std::size_t size_bytes = 4;  // of what was joined, little-endian, before the packed bytes

}  // namespace

std::size_t row_length(std::span<const Record> records) {
  std::size_t bytes = records.front().body.size();
  std::size_t length = 1;
  while (length < records.size() && (bytes += 1 + records[length].body.size()) <= joined_max) ++length;
  return length;
}

std::uint32_t checksum_of(Lsn end, bool more, std::string_view body, std::uint32_t previous) {
  return crc32c(body, crc32c(cat(end.value, more ? "+" : ""), previous));
}

RowPacker::Body RowPacker::pack(std::span<const Record> records) {
  if (records.size() == 1) return {records.front().body, false};
  joined_.clear();
  for (const Record& record : records) {
    if (&record != &records.front()) joined_ += separator;
    joined_ += record.body;
  }
  const int size = static_cast<int>(joined_.size());
  const int room = LZ4_compressBound(size);
  packed_.resize(size_bytes + static_cast<std::size_t>(room));
  for (std::size_t i = 0; i < size_bytes; ++i) packed_[i] = static_cast<char>(size >> (8 * i) & 0xFF);
  const int used = LZ4_compress_default(joined_.data(), packed_.data() + size_bytes, size, room);
  LOCKSTEP_CHECK(used > 0);
  return {std::string_view(packed_).substr(0, size_bytes + static_cast<std::size_t>(used)), true};
}

std::optional<std::vector<Record>> unpack(RecordRow&& row) {
  std::vector<Record> records;
  if (!row.packed) {
    records.push_back({row.end, std::move(row.body)});
    return records;
  }
  if (row.body.size() < size_bytes) return std::nullopt;
  std::size_t size = 0;
  for (std::size_t i = size_bytes; i-- > 0;) size = size << 8 | static_cast<std::uint8_t>(row.body[i]);
  if (size > joined_max) return std::nullopt;
  std::string joined(size, '\0');
  const int got = LZ4_decompress_safe(row.body.data() + size_bytes, joined.data(),
                                      static_cast<int>(row.body.size() - size_bytes), static_cast<int>(size));
  if (got != static_cast<int>(size)) return std::nullopt;
  const auto length = 1 + static_cast<std::uint64_t>(std::ranges::count(joined, separator));
  if (length > row.end.value) return std::nullopt;
  records.reserve(length);
  Lsn lsn{row.end.value - length};
  for (std::size_t at = 0; at <= joined.size();) {
    const std::size_t stop = std::min(joined.find(separator, at), joined.size());
    records.push_back({lsn = lsn.next(), joined.substr(at, stop - at)});
    at = stop + 1;
  }
  return records;
}

}  // namespace lockstep
