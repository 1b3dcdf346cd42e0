#include "adapters/adapter_features.h"

#include <gtest/gtest.h>

namespace lorikeet {
namespace {

size_t Find(const std::vector<Token>& prompt,
            const std::vector<Token>& invocation) {
  return FindInvocation(prompt, invocation);
}

TEST(FindInvocationTest, TheLastOneCounts) {
  EXPECT_EQ(Find({7, 4, 1, 7, 4, 2}, {7, 4}), 3u);
  EXPECT_EQ(Find({7, 4}, {7, 4}), 0u);
}

TEST(FindInvocationTest, OccurrencesMayOverlap) {
  EXPECT_EQ(Find({19, 19, 19}, {19, 19}), 1u);
}

TEST(FindInvocationTest, WithoutOneItIsTheEnd) {
  EXPECT_EQ(Find({1, 2, 3}, {7}), 3u);
  EXPECT_EQ(Find({1, 2, 7}, {7, 4}), 3u) << "half of one is none";
  EXPECT_EQ(Find({7}, {7, 4}), 1u);
}

}  // namespace
}  // namespace lorikeet
