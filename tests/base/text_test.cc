#include "base/text.h"

#include <string>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(TextTest, QuotesControlCharactersAndBadBytes) {
  EXPECT_EQ(Quote("plain"), "\"plain\"");
  EXPECT_EQ(Quote("a\"b\\"), "\"a\\\"b\\\\\"");
  EXPECT_EQ(Escape("\n\x1b[31m\x7f"), "\\x0a\\x1b[31m\\x7f");
  EXPECT_EQ(Escape("\xff\xc3"), "\\xff\\xc3");
  // U+0085 and U+009B move a terminal's cursor as well.
  EXPECT_EQ(Escape("\xc2\x85\xc2\x9b"), "\\xc2\\x85\\xc2\\x9b");
  EXPECT_EQ(Escape("gr\xc3\xbc\xc3\x9f \xf0\x9f\xa6\x9c"),
            "gr\xc3\xbc\xc3\x9f \xf0\x9f\xa6\x9c");
}

TEST(TextTest, CutsLongTextOnACodePoint) {
  EXPECT_EQ(Escape("abcdef", 3), "abc...");
  EXPECT_EQ(Escape("abc", 3), "abc");
  EXPECT_EQ(Escape("ab\xc3\xbc!", 3), "ab\xc3\xbc...");
}

TEST(TextTest, AcceptsWellFormedUtf8) {
  EXPECT_TRUE(IsValidUtf8(""));
  EXPECT_TRUE(IsValidUtf8("a\xc2\x80\xdf\xbf"));
  EXPECT_TRUE(IsValidUtf8("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80"));
  EXPECT_TRUE(IsValidUtf8("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
  EXPECT_TRUE(IsValidUtf8(absl::string_view("\0", 1)));
}

TEST(TextTest, RefusesWhatTable37LeavesOut) {
  EXPECT_FALSE(IsValidUtf8("\x80"));              // a tail alone
  EXPECT_FALSE(IsValidUtf8("\xc3"));              // cut off
  EXPECT_FALSE(IsValidUtf8("\xc0\xaf"));          // overlong
  EXPECT_FALSE(IsValidUtf8("\xe0\x9f\xbf"));      // overlong
  EXPECT_FALSE(IsValidUtf8("\xed\xa0\x80"));      // a surrogate
  EXPECT_FALSE(IsValidUtf8("\xf0\x8f\xbf\xbf"));  // overlong
  EXPECT_FALSE(IsValidUtf8("\xf4\x90\x80\x80"));  // past U+10FFFF
  EXPECT_FALSE(IsValidUtf8("\xf5\x80\x80\x80"));
  EXPECT_FALSE(IsValidUtf8("\xe2\x82"));
}

TEST(TextTest, PrintsBytesForPeople) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(HumanBytes(uint64_t{1} << 60), "1048576.0 TiB");
}

TEST(TextTest, ParsesBytesWithUnits) {
  EXPECT_EQ(ParseBytes("0").value(), 0u);
  EXPECT_EQ(ParseBytes("1073741824").value(), uint64_t{1} << 30);
  EXPECT_EQ(ParseBytes("512MiB").value(), uint64_t{512} << 20);
  EXPECT_EQ(ParseBytes("4G").value(), uint64_t{4} << 30);
  EXPECT_EQ(ParseBytes("4GB").value(), uint64_t{4} << 30);
  EXPECT_EQ(ParseBytes("1.5GiB").value(), uint64_t{3} << 29);
  EXPECT_EQ(ParseBytes(" 2k ").value(), 2048u);
}

TEST(TextTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "B", "-1", "1X", "ten", "nan", "inf", "1e30",
                           "9223372036854775808G"}) {
    EXPECT_EQ(ParseBytes(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace lorikeet
