#include "base/strong_int.h"

#include <cstdint>
#include <limits>
#include <type_traits>

#include "absl/container/flat_hash_map.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using BlockId = StrongInt<struct BlockIdTag, int32_t>;
using SlotId = StrongInt<struct SlotIdTag, int32_t>;

static_assert(!std::is_convertible_v<int, BlockId>);
static_assert(!std::is_convertible_v<BlockId, int>);
static_assert(!std::is_constructible_v<BlockId, SlotId>);
static_assert(sizeof(BlockId) == sizeof(int32_t));

TEST(StrongIntTest, StartsAtZeroAndKeepsItsValue) {
  EXPECT_EQ(BlockId().value(), 0);
  EXPECT_EQ(BlockId(7).value(), 7);
  constexpr int32_t kMin = std::numeric_limits<int32_t>::min();
  EXPECT_EQ(BlockId(kMin).value(), kMin);
}

TEST(StrongIntTest, Orders) {
  EXPECT_LT(BlockId(-1), BlockId(1));
  EXPECT_EQ(BlockId(3), BlockId(3));
  EXPECT_NE(BlockId(3), BlockId(4));
}

TEST(StrongIntTest, IsAKey) {
  absl::flat_hash_map<BlockId, int> map;
  map[BlockId(1)] = 10;
  map[BlockId(2)] = 20;
  EXPECT_EQ(map.at(BlockId(1)), 10);
  EXPECT_FALSE(map.contains(BlockId(3)));
}

}  // namespace
}  // namespace lorikeet
