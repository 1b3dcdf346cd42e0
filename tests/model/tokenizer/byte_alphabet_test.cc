#include "model/tokenizer/byte_alphabet.h"

#include <string>

#include <gtest/gtest.h>

namespace lorikeet {
namespace {

TEST(ByteAlphabetTest, IsGpt2sTable) {
  EXPECT_EQ(ByteAlphabetCharacter('A'), "A");
  EXPECT_EQ(ByteAlphabetCharacter(0), "\u0100");
  EXPECT_EQ(ByteAlphabetCharacter(' '), "\u0120");
  EXPECT_EQ(ByteAlphabetCharacter('\n'), "\u010A");
  EXPECT_EQ(ByteAlphabetCharacter(0x7F), "\u0121");
  EXPECT_EQ(ByteAlphabetCharacter(0xA0), "\u0142");
  EXPECT_EQ(ByteAlphabetCharacter(0xAD), "\u0143");
  EXPECT_EQ(ByteAlphabetCharacter(0xFF), "\u00FF");
}

TEST(ByteAlphabetTest, EveryByteComesBack) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  EXPECT_EQ(FromByteAlphabet(ToByteAlphabet(bytes)), bytes);
}

TEST(ByteAlphabetTest, TextWithAForeignCodePointStaysAsItIs) {
  EXPECT_EQ(FromByteAlphabet("\u0120a"), " a");
  EXPECT_EQ(FromByteAlphabet("\u0120 a"), "\u0120 a");  // a real space
  EXPECT_EQ(FromByteAlphabet("\u0120\u2581"), "\u0120\u2581");
}

}  // namespace
}  // namespace lorikeet
