#include "server/printable.h"

#include <gtest/gtest.h>

namespace lockstep::server {
namespace {

TEST(Printable, text_stays_and_what_would_break_a_log_is_shown) {
  EXPECT_EQ(printable("a lighthouse, \xC3\xBC \xE2\x82\xAC \xF0\x9F\x98\x80"),
            "a lighthouse, \xC3\xBC \xE2\x82\xAC \xF0\x9F\x98\x80");
  EXPECT_EQ(printable("one\ntwo\x1B[31m\x7F"), "one\\x0atwo\\x1b[31m\\x7f");
  EXPECT_EQ(printable("\xAE>\xC3"), "\\xae>\\xc3");
  EXPECT_EQ(printable("\xED\xA0\x80"), "\\xed\\xa0\\x80");
}

}  // namespace
}  // namespace lockstep::server
