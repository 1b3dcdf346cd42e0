#include "model/kv_pool.h"

#include <cstdint>
#include <limits>
#include <utility>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.num_layers = 3;
  config.num_kv_heads = 2;
  config.head_dim = 4;
  return config;
}

TEST(KvPoolTest, LayersDoNotOverlap) {
  const auto pool = KvPool::Create(SmallConfig(), DType::kF32, 5);
  ASSERT_TRUE(pool.ok()) << pool.status();
  const int64_t elements = 5 * pool->layer(0).block_stride;
  for (int64_t i = 0; i < 3; ++i) {
    const PagedKvView view = pool->layer(i);
    EXPECT_EQ(view.block_stride, 2 * kKvBlockSize * 4);
    EXPECT_EQ(view.block_size, kKvBlockSize);
    for (int64_t j = 0; j < elements; ++j) {
      static_cast<float*>(view.k)[j] = static_cast<float>(2 * i + 1);
      static_cast<float*>(view.v)[j] = static_cast<float>(2 * i + 2);
    }
  }
  for (int64_t i = 0; i < 3; ++i) {
    const PagedKvView view = pool->layer(i);
    for (int64_t j = 0; j < elements; ++j) {
      ASSERT_EQ(static_cast<float*>(view.k)[j], static_cast<float>(2 * i + 1));
      ASSERT_EQ(static_cast<float*>(view.v)[j], static_cast<float>(2 * i + 2));
    }
  }
}

TEST(KvPoolTest, BlockBytesCountsLayersAndBothHalves) {
  EXPECT_EQ(KvPool::BlockBytes(SmallConfig(), DType::kF32),
            3 * 2 * 2 * kKvBlockSize * 4 * 4);
  EXPECT_EQ(KvPool::BlockBytes(SmallConfig(), DType::kBF16),
            3 * 2 * 2 * kKvBlockSize * 4 * 2);
}

TEST(KvPoolTest, ReservesMoreThanTheMachineHas) {
  // A terabyte of addresses; no page is touched.
  const int64_t blocks =
      (int64_t{1} << 40) / KvPool::BlockBytes(SmallConfig(), DType::kBF16);
  EXPECT_TRUE(KvPool::Create(SmallConfig(), DType::kBF16, blocks).ok());
}

TEST(KvPoolTest, RefusesWhatOverflows) {
  const auto pool = KvPool::Create(SmallConfig(), DType::kF32,
                                   std::numeric_limits<int64_t>::max() / 2);
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(KvPoolTest, MovesWithItsMemory) {
  auto pool = KvPool::Create(SmallConfig(), DType::kF32, 1);
  ASSERT_TRUE(pool.ok());
  static_cast<float*>(pool->layer(2).v)[0] = 7;
  const KvPool moved = *std::move(pool);
  EXPECT_EQ(static_cast<float*>(moved.layer(2).v)[0], 7);
  EXPECT_EQ(moved.num_blocks(), 1);
}

}  // namespace
}  // namespace lorikeet
