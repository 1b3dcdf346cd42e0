#include "server/scheduler/kv_blocks.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

class KvBlocksTest : public testing::Test {
 protected:
  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.num_blocks = 6;
    options.block_size = 4;
    return options;
  }
  // A sequence of `n` tokens that begin with `first`.
  Sequence MakeSequence(Token first, int64_t n) {
    Sequence s;
    s.entry = &entry_;
    for (int64_t i = 0; i < n; ++i) {
      s.tokens.push_back(first + static_cast<Token>(i));
    }
    return s;
  }
  void Compute(Sequence* s, int64_t end) {
    std::optional<KvBlocks::BlockCopy> copy;
    ASSERT_TRUE(blocks_.Reserve(end, s, &copy));
    s->num_computed = end;
    blocks_.Register(s);
    blocks_.EndStep();
  }

  RequestEntry entry_;
  KvBlocks blocks_{Options()};
};

TEST_F(KvBlocksTest, LeavesAtLeastOneTokenToCompute) {
  Sequence a = MakeSequence(0, 8);
  Compute(&a, 8);
  EXPECT_EQ(blocks_.FindPrefix(MakeSequence(0, 8)).size(), 1u);
  EXPECT_EQ(blocks_.FindPrefix(MakeSequence(0, 9)).size(), 2u);
  blocks_.Release(&a);
}

TEST_F(KvBlocksTest, DoesNotCacheAPartOfABlock) {
  Sequence a = MakeSequence(0, 7);
  Compute(&a, 7);
  EXPECT_EQ(blocks_.FindPrefix(MakeSequence(0, 12)).size(), 1u);
}

TEST_F(KvBlocksTest, KeepsOneBlockOfTwoThatHoldTheSame) {
  Sequence a = MakeSequence(0, 8), b = MakeSequence(0, 8);
  Compute(&a, 4);
  Compute(&b, 4);
  EXPECT_EQ(a.blocks, b.blocks);
  EXPECT_EQ(blocks_.allocator().num_used(), 1);
}

TEST_F(KvBlocksTest, CopiesASharedBlockBeforeItIsWritten) {
  Sequence a = MakeSequence(0, 7), b = MakeSequence(0, 7);
  Compute(&a, 6);
  blocks_.Fork(a, &b);
  const int32_t shared = a.blocks[1];
  std::optional<KvBlocks::BlockCopy> copy_a, copy_b;
  ASSERT_TRUE(blocks_.Reserve(7, &a, &copy_a));
  ASSERT_TRUE(blocks_.Reserve(7, &b, &copy_b));
  EXPECT_EQ(copy_a, KvBlocks::BlockCopy(shared, a.blocks[1]));
  // The last sharer may write: the copy is made before.
  EXPECT_EQ(copy_b, std::nullopt);
  EXPECT_EQ(b.blocks[1], shared);
  EXPECT_EQ(a.blocks[0], b.blocks[0]);
  blocks_.EndStep();
  const std::vector<const Sequence*> all = {&a, &b};
  blocks_.CheckInvariants(all);
}

TEST_F(KvBlocksTest, KeepsTheSourceOfACopyUntilTheStepEnds) {
  Sequence a = MakeSequence(0, 7), b = MakeSequence(0, 7);
  Compute(&a, 6);
  blocks_.Fork(a, &b);
  const int32_t shared = a.blocks[1];
  std::optional<KvBlocks::BlockCopy> copy;
  ASSERT_TRUE(blocks_.Reserve(7, &a, &copy));
  blocks_.Release(&b);
  EXPECT_EQ(blocks_.allocator().ref_count(shared), 1);
  blocks_.EndStep();
  EXPECT_EQ(blocks_.allocator().ref_count(shared), 0);
}

TEST_F(KvBlocksTest, SaysWhenBlocksRunOut) {
  Sequence a = MakeSequence(0, 40);
  std::optional<KvBlocks::BlockCopy> copy;
  EXPECT_TRUE(blocks_.Reserve(24, &a, &copy));
  EXPECT_FALSE(blocks_.Reserve(25, &a, &copy));
}

TEST_F(KvBlocksTest, ReadsNoCacheForPromptLogprobs) {
  Sequence a = MakeSequence(0, 8);
  Compute(&a, 8);
  entry_.request.all_prompt_logits = true;
  entry_.request.prompt.resize(9);
  EXPECT_TRUE(blocks_.FindPrefix(MakeSequence(0, 9)).empty());
}

}  // namespace
}  // namespace lorikeet
