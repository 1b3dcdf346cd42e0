#include "base/digest.h"

#include <string>

#include "absl/container/flat_hash_set.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

// FIPS 180-4 examples.
constexpr char kOfAbc[] =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kOfNothing[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(DigestTest, IsSha256) {
  EXPECT_EQ(DigestOf("abc").ToHex(), kOfAbc);
  EXPECT_EQ(DigestOf("").ToHex(), kOfNothing);
  EXPECT_EQ(DigestOf("abc").ToShortHex(), "ba7816bf8f01");
}

TEST(DigestTest, PiecesGiveTheDigestOfTheWhole) {
  Sha256 sha;
  sha.Update("a");
  sha.Update("");
  sha.Update("bc");
  EXPECT_EQ(sha.Finish().ToHex(), kOfAbc);
}

TEST(DigestTest, FieldsHaveOneReadingOnly) {
  Sha256 one, other;
  one.UpdateField("ab");
  one.UpdateField("c");
  other.UpdateField("a");
  other.UpdateField("bc");
  EXPECT_NE(one.Finish(), other.Finish());
}

TEST(DigestTest, ReadsItsOwnTextInEitherCase) {
  const Digest digest = DigestOf("abc");
  EXPECT_EQ(Digest::FromHex(kOfAbc).value(), digest);
  std::string upper(kOfAbc);
  for (char& c : upper) {
    if (c >= 'a') c = static_cast<char>(c - 'a' + 'A');
  }
  EXPECT_EQ(Digest::FromHex(upper).value(), digest);
}

TEST(DigestTest, RefusesWhatIsNoDigest) {
  const std::string hex(kOfAbc);
  for (const std::string& text :
       {std::string(), hex.substr(1), hex + "0", "g" + hex.substr(1)}) {
    EXPECT_EQ(Digest::FromHex(text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(DigestTest, ComparesAndHashesByContent) {
  EXPECT_TRUE(Digest().IsZero());
  EXPECT_FALSE(DigestOf("").IsZero());
  const absl::flat_hash_set<Digest> set = {DigestOf("a"), DigestOf("b"),
                                           DigestOf("a")};
  EXPECT_EQ(set.size(), 2u);
}

TEST(Crc32cTest, MatchesRfc3720) {
  std::string ascending, descending;
  for (int i = 0; i < 32; ++i) {
    ascending += static_cast<char>(i);
    descending += static_cast<char>(31 - i);
  }
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Crc32c(ascending), 0x46DD794Eu);
  EXPECT_EQ(Crc32c(descending), 0x113FDB5Cu);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
}

}  // namespace
}  // namespace lorikeet
