#include "model/tokenizer/utf8.h"

#include <string>

#include <gtest/gtest.h>

#include "base/text.h"

namespace lorikeet {
namespace {

std::string Lossy(absl::string_view bytes) {
  std::string out;
  EXPECT_EQ(DecodeLossy(bytes, /*more=*/false, &out), bytes.size());
  return out;
}

TEST(Utf8Test, EveryCodePointReadsBackAsItself) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_TRUE(IsValidUtf8(text)) << static_cast<uint32_t>(c);
    ASSERT_EQ(Utf8Length(text[0]), text.size());
    ASSERT_EQ(CodePointAt(text, 0), c);
  }
}

TEST(Utf8Test, CountsCodePointsAndNotBytes) {
  EXPECT_EQ(CountCodePoints(""), 0u);
  EXPECT_EQ(CountCodePoints("a\xC3\xA9\xE2\x96\x81\xF0\x9F\x98\x80"), 4u);
}

TEST(Utf8Test, ReplacesEachMaximalIllFormedPartOnce) {
  EXPECT_EQ(Lossy("\xF0\x9F\x98"), "\uFFFD");
  EXPECT_EQ(Lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("a\xE4\xBD"
                  "b\xFF\xC3\xA9"),
            "a\uFFFDb\uFFFD\u00E9");
}

TEST(Utf8Test, KeepsAnUnfinishedCodePointWhileMoreMayFollow) {
  std::string out;
  EXPECT_EQ(DecodeLossy("a\xE4\xBD", /*more=*/true, &out), 1u);
  EXPECT_EQ(out, "a");
}

TEST(Utf8Test, DoesNotKeepWhatCanNoLongerBecomeACodePoint) {
  std::string out;
  EXPECT_EQ(DecodeLossy("\xE0\x80", /*more=*/true, &out), 2u);
  EXPECT_EQ(out, "\uFFFD\uFFFD");
}

}  // namespace
}  // namespace lorikeet
