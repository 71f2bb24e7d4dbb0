#include "journal/checksums.h"

#include <gtest/gtest.h>

#include "journal/sqlite_rows.h"

namespace lockstep {
namespace {

// The examples of docs/formats/journal.md.
TEST(Checksums, are_those_of_the_description) {
  EXPECT_EQ(checksum_of(Lsn{1}, false, "body", 0), 3105965402u);
  EXPECT_EQ(checksum_of(Lsn{1}, true, "body", 0), 194779926u);
  RowSet set;
  set.add(row_crc("t", "a", "1", 2));
  set.add(row_crc("t", "b", "2", 3));
  const Marks marks{Lsn{1}, 3105965402u, Lsn{3}, 7, set};
  EXPECT_EQ(row_crc("t", "a", "1", 2), 842197066u);
  EXPECT_EQ(row_crc("t", "b", "2", 3), 353826766u);
  EXPECT_EQ(set.sum, 7467653552039264482u);
  EXPECT_EQ(marks.crc(), 2647698776u);
}

TEST(Checksums, a_set_of_rows_has_no_order_and_forgets_what_leaves) {
  RowSet one;
  RowSet other;
  for (const std::uint32_t crc : {1u, 2u, 3u, 0xFFFFFFFFu, 0u}) one.add(crc);
  for (const std::uint32_t crc : {0u, 7u, 3u, 2u, 0xFFFFFFFFu, 1u}) other.add(crc);
  EXPECT_NE(one, other);
  other.remove(7);
  EXPECT_EQ(one, other);
  EXPECT_LT(one.sum, std::uint64_t{1} << 63);
  // Two rows that differ by one, up and down, are two other rows.
  other.remove(2);
  other.remove(3);
  other.add(1);
  other.add(4);
  EXPECT_EQ(one.count, other.count);
  EXPECT_NE(one.sum, other.sum);
  for (const std::uint32_t crc : {1u, 4u, 0xFFFFFFFFu, 1u, 0u}) other.remove(crc);
  EXPECT_EQ(other, RowSet{});
}

}  // namespace
}  // namespace lockstep
