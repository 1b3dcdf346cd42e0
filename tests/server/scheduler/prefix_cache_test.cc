#include "server/scheduler/prefix_cache.h"

#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

constexpr KvDomain kBase{{1, 2}};
constexpr KvDomain kOther{{1, 3}};

class PrefixCacheTest : public testing::Test {
 protected:
  PrefixCache::Link Insert(const PrefixCache::Link& parent,
                           std::vector<Token> tokens, int32_t block) {
    std::optional<int32_t> displaced;
    const PrefixCache::Link link =
        cache_.Insert(kBase, parent, tokens, block, &displaced);
    displaced_ = displaced;
    return link;
  }
  std::optional<int32_t> Lookup(const KvDomain& domain,
                                const PrefixCache::Link& parent,
                                std::vector<Token> tokens) {
    const auto hit = cache_.Lookup(domain, parent, tokens);
    if (!hit.has_value()) return std::nullopt;
    return hit->block;
  }

  PrefixCache cache_{8, 2};
  std::optional<int32_t> displaced_;
};

TEST_F(PrefixCacheTest, FindsABlockBehindItsPrefix) {
  const PrefixCache::Link first = Insert({}, {1, 2}, 5);
  Insert(first, {3, 4}, 6);
  EXPECT_EQ(Lookup(kBase, {}, {1, 2}), 5);
  EXPECT_EQ(Lookup(kBase, first, {3, 4}), 6);
}

TEST_F(PrefixCacheTest, KeepsDomainsApart) {
  Insert({}, {1, 2}, 5);
  EXPECT_EQ(Lookup(kOther, {}, {1, 2}), std::nullopt);
}

TEST_F(PrefixCacheTest, KeepsPrefixesApart) {
  const PrefixCache::Link first = Insert({}, {1, 2}, 5);
  Insert(first, {3, 4}, 6);
  EXPECT_EQ(Lookup(kBase, {}, {3, 4}), std::nullopt);
  EXPECT_EQ(Lookup(kBase, {}, {2, 1}), std::nullopt);
}

TEST_F(PrefixCacheTest, ForgetsABlock) {
  Insert({}, {1, 2}, 5);
  cache_.Forget(5);
  EXPECT_EQ(Lookup(kBase, {}, {1, 2}), std::nullopt);
  EXPECT_EQ(cache_.size(), 0);
}

TEST_F(PrefixCacheTest, ReplacesWhatHangsOnAForgottenParent) {
  const PrefixCache::Link old_parent = Insert({}, {1, 2}, 5);
  Insert(old_parent, {3, 4}, 6);
  cache_.Forget(5);
  const PrefixCache::Link parent = Insert({}, {1, 2}, 7);
  EXPECT_EQ(Lookup(kBase, parent, {3, 4}), std::nullopt);
  Insert(parent, {3, 4}, 4);
  EXPECT_EQ(displaced_, 6);
  EXPECT_EQ(Lookup(kBase, parent, {3, 4}), 4);
}

}  // namespace
}  // namespace lorikeet
