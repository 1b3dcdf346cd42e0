#include "adapters/adapter_key.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

TEST(AdapterRefTest, ReadsEveryForm) {
  const auto plain = AdapterRef::Parse("support");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->tenant, "default");
  EXPECT_EQ(plain->name, "support");
  EXPECT_FALSE(plain->version.has_value());
  EXPECT_FALSE(plain->digest.has_value());

  const auto full = AdapterRef::Parse("acme/support.v2@17");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->tenant, "acme");
  EXPECT_EQ(full->name, "support.v2");
  EXPECT_EQ(full->version, 17u);

  const auto digest = AdapterRef::Parse("a@sha256:ABCDEF012345");
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(digest->digest, "abcdef012345");
}

TEST(AdapterRefTest, RefusesWhatIsNoName) {
  for (const std::string text :
       {"",
        "@1",
        "a@",
        "a@0",
        "a@01",
        "a@-1",
        "a@1.5",
        "a@4294967296",
        "a@x",
        "a@1@2",
        "a/b/c",
        "/a",
        "a/",
        "-a",
        ".a",
        "a b",
        "a\nb",
        "a\x1b",
        "a@sha256:",
        "a@sha256:abc",
        "a@sha256:xyzxyzxyzxyz",
        "../a",
        "a@sha256:"
        "00000000000000000000000000000000000000000000000000000000000000000"}) {
    const auto ref = AdapterRef::Parse(text);
    EXPECT_EQ(ref.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(ReasonOf(ref.status()), "INVALID_NAME");
    EXPECT_FALSE(absl::StrContains(ref.status().message(), "\x1b"));
  }
}

TEST(CheckIdTest, HoldsTheLengthLimit) {
  EXPECT_TRUE(CheckId("adapter id", std::string(63, 'a')).ok());
  EXPECT_FALSE(CheckId("adapter id", std::string(64, 'a')).ok());
  EXPECT_FALSE(CheckId("adapter id", "\xc3\xa9").ok());
}

TEST(AdapterKeyTest, PrintsTheTenantUnlessItIsTheDefault) {
  AdapterKey key{"default", "a", 3, Digest()};
  EXPECT_EQ(key.ToString(), "a@3");
  key.tenant = "acme";
  EXPECT_EQ(key.ToString(), "acme/a@3");
}

TEST(AdapterKeyTest, DiffersByEveryPart) {
  const AdapterKey key{"t", "a", 1, DigestOf("x")};
  absl::flat_hash_set<AdapterKey> set{key};
  for (AdapterKey other : {AdapterKey{"u", "a", 1, DigestOf("x")},
                           AdapterKey{"t", "b", 1, DigestOf("x")},
                           AdapterKey{"t", "a", 2, DigestOf("x")},
                           AdapterKey{"t", "a", 1, DigestOf("y")}}) {
    EXPECT_NE(key, other);
    EXPECT_TRUE(set.insert(other).second);
  }
}

}  // namespace
}  // namespace lorikeet
