#include "model/weight_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"
#include "tests/model/test_runner.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

class WeightCacheTest : public ::testing::Test {
 protected:
  WeightCacheTest() {
    Rng rng(1);
    for (float& x : source_) x = static_cast<float>(rng.Normal());
    const ConstTensor w(source_.data(), DType::kF32, 40, 70, 70);
    a_ = backend_.ops->PackWeight(w, DType::kI8);
    b_ = backend_.ops->PackWeight({source_.data(), DType::kF32, 33, 64, 70},
                                  DType::kI8);
  }
  WeightCache NewCache() { return WeightCache(fs_, dir_, DType::kI8, "test1"); }
  void Write() {
    ASSERT_TRUE(
        NewCache().Write(key_, {{"a", a_.get()}, {"b", b_.get()}}).ok());
  }
  std::string Bytes() {
    return fs_.ReadFile(NewCache().PathOf(key_), 1 << 20).value();
  }
  // Status of opening and reading "b" after the file was replaced.
  absl::Status ReadAfter(const std::string& bytes) {
    testing::WriteTestFile(NewCache().PathOf(key_), bytes);
    WeightCache cache = NewCache();
    const absl::Status status = cache.Open(key_);
    return status.ok() ? cache.Find("b", 33, 64).status() : status;
  }

  PosixFileSystem fs_;
  const std::string dir_ = testing::FreshTempDir("weight_cache_test") + "/w";
  const Digest key_ = DigestOf("base");
  testing::Backend backend_ = testing::NewBackend("cpu");
  std::vector<float> source_ = std::vector<float>(40 * 70);
  std::unique_ptr<PackedWeight> a_, b_;
};

TEST_F(WeightCacheTest, GivesBackWhatWasWritten) {
  EXPECT_FALSE(NewCache().HasAny());
  Write();
  WeightCache cache = NewCache();
  EXPECT_TRUE(cache.HasAny());
  ASSERT_TRUE(cache.Open(key_).ok());
  EXPECT_EQ(cache.Find("a", 40, 70).value(), a_->packed_bytes());
  EXPECT_EQ(cache.Find("b", 33, 64).value(), b_->packed_bytes());
}

TEST_F(WeightCacheTest, AnotherBaseDTypeOrLayoutIsNotFound) {
  Write();
  EXPECT_EQ(NewCache().Open(DigestOf("another base")).code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(WeightCache(fs_, dir_, DType::kI8, "test2").HasAny());
  EXPECT_FALSE(WeightCache(fs_, dir_, DType::kBF16, "test1").HasAny());
}

TEST_F(WeightCacheTest, ATensorOfAnotherShapeIsRefused) {
  Write();
  WeightCache cache = NewCache();
  ASSERT_TRUE(cache.Open(key_).ok());
  EXPECT_THAT(cache.Find("a", 70, 40).status().message(),
              HasSubstr("[70, 40]"));
  EXPECT_EQ(cache.Find("c", 40, 70).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(WeightCacheTest, EveryTruncationIsDataLoss) {
  Write();
  const std::string bytes = Bytes();
  for (size_t size = 0; size < bytes.size(); size += 61) {
    EXPECT_EQ(ReadAfter(bytes.substr(0, size)).code(),
              absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST_F(WeightCacheTest, EveryFlippedBitOfHeaderOrTensorIsDataLoss) {
  Write();
  const std::string bytes = Bytes();
  const size_t tensor = bytes.size() - b_->packed_bytes().size();
  const size_t header = 20 + LoadLittleEndian<uint64_t>(bytes.data() + 8);
  for (size_t at = 0; at < bytes.size(); at += at < header ? 1 : 97) {
    if (at >= header && at < tensor) continue;  // padding and the other tensor
    std::string damaged = bytes;
    damaged[at] ^= 0x10;
    EXPECT_EQ(ReadAfter(damaged).code(), absl::StatusCode::kDataLoss) << at;
  }
}

}  // namespace
}  // namespace lorikeet
