// What each function of kernels/cuda/device.h gives, as a table: on the
// emulated device in every test run, so that kernels are tested on the right
// machine, and on a GPU ($LORIKEET_TEST_CUDA), so that it is the right machine.
// Exact where the hardware is; else within the error that CUDA documents.

#include "tests/kernels/cuda/intrinsics.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/dtype.h"

namespace lorikeet::testing {
namespace {

using Words = std::vector<uint32_t>;

uint32_t BitsOf(float x) { return std::bit_cast<uint32_t>(x); }
float FloatOf(uint32_t bits) { return std::bit_cast<float>(bits); }

Words BitsOf(const std::vector<float>& values) {
  Words words;
  for (const float x : values) words.push_back(BitsOf(x));
  return words;
}

// One in a process: each of the emulated ones wants the same addresses.
std::string Library() {
  if (std::getenv("LORIKEET_TEST_CUDA") != nullptr) return "cuda";
  const char* const build = std::getenv("LORIKEET_CUDA_ON_HOST_BUILD");
  return std::string("cuda_on_host_") + (build == nullptr ? "checked" : build);
}

class IntrinsicsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* const dir = std::getenv("LORIKEET_BINARY_DIR");
    const std::string path = std::string(dir == nullptr ? "." : dir) +
                             "/liblorikeet_intrinsics_" + Library() + ".so";
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    run_ = reinterpret_cast<RunIntrinsic>(dlsym(library, kRunIntrinsicSymbol));
    ASSERT_NE(run_, nullptr) << dlerror();
  }

  Words Run(const char* name, int threads, const Words& in, size_t out_count) {
    Words out(out_count, 0xDEADBEEF);
    EXPECT_EQ(run_(name, threads, in.data(), in.size(), out.data(), out.size()),
              0)
        << name;
    return out;
  }

  RunIntrinsic run_ = nullptr;
  Rng rng_{11};
};

// Numbers of every size, with the special ones.
std::vector<float> ManyFloats(Rng& rng) {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1.0f,
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::min(),
                               std::numeric_limits<float>::denorm_min(),
                               1.5e-40f};
  for (int i = 0; i < 2000; ++i) {
    const float x = FloatOf(static_cast<uint32_t>(rng.NextUint64()));
    if (!std::isnan(x)) values.push_back(x);
  }
  return values;
}

TEST_F(IntrinsicsTest, RoundingToBf16IsToNearestEven) {
  std::vector<float> values = ManyFloats(rng_);
  for (uint32_t high = 0; high < 0x7F80; high += 37) {
    for (const uint32_t low : {0x7FFFu, 0x8000u, 0x8001u}) {  // ties, beside
      values.push_back(FloatOf(high << 16 | low));
    }
  }
  const Words out = Run("round", 128, BitsOf(values), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t expected = BF16FromFloat(values[i]);
    ASSERT_EQ(out[i] & 0xFFFF, expected) << values[i];
    ASSERT_EQ(out[i] >> 16, expected) << values[i] << " in a pair";
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Words of_nan = Run("round", 32, {BitsOf(nan)}, 1);
  EXPECT_TRUE(std::isnan(FloatFromBF16(static_cast<uint16_t>(of_nan[0]))));
  EXPECT_TRUE(
      std::isnan(FloatFromBF16(static_cast<uint16_t>(of_nan[0] >> 16))));
}

TEST_F(IntrinsicsTest, WideningBf16IsAShift) {
  Words in;
  for (int i = 0; i < 512; ++i) {
    in.push_back(static_cast<uint32_t>(rng_.NextUint64()) &
                 0xFF7FFF7Fu);  // no NaN
  }
  const Words out = Run("widen", 128, in, 2 * in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    ASSERT_EQ(out[2 * i], in[i] << 16);
    ASSERT_EQ(out[2 * i + 1], in[i] & 0xFFFF0000u);
  }
}

TEST_F(IntrinsicsTest, FmaRoundsOnceAndSubnormalNumbersAreKept) {
  std::vector<float> pairs;
  for (const float x : ManyFloats(rng_)) {
    pairs.push_back(x);
    pairs.push_back(static_cast<float>(rng_.Normal()));
  }
  const size_t n = pairs.size() / 2;
  const Words out = Run("fma", 128, BitsOf(pairs), 2 * n);
  for (size_t i = 0; i < n; ++i) {
    const float sum = std::fma(pairs[2 * i], pairs[2 * i + 1], 1.0f);
    if (!std::isnan(sum)) {
      ASSERT_EQ(out[i], BitsOf(sum)) << pairs[2 * i];
    }
    ASSERT_EQ(out[n + i], BitsOf(pairs[2 * i] * 0.5f)) << pairs[2 * i];
  }
}

// A unit in the last place is 2^-23 of a number at most; one more than what is
// documented is for the rounding of the result.
void ExpectWithin(double ulps, float actual, double exact, float x) {
  // Below the normal numbers it may give 0.
  EXPECT_LE(std::abs(actual - exact),
            ulps * std::max(std::abs(exact) * 0x1p-23, 0x1p-126))
      << x;
}

TEST_F(IntrinsicsTest, ExpIsWithinItsDocumentedErrorAndOneOfZero) {
  std::vector<float> values = {0.0f, -0.0f, 1.0f, -1.0f, 88.0f, -87.0f};
  for (int i = 0; i < 4000; ++i) {
    values.push_back(static_cast<float>(rng_.Uniform() * 175 - 87));
  }
  const Words out = Run("exp", 128, BitsOf(values), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const float x = values[i];
    ExpectWithin(3 + std::abs(1.173 * x), FloatOf(out[i]),
                 std::exp(static_cast<double>(x)), x);
  }
  EXPECT_EQ(FloatOf(out[0]), 1.0f);
  EXPECT_EQ(FloatOf(out[1]), 1.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  const Words ends = Run(
      "exp", 32, BitsOf(std::vector<float>{-infinity, -1e30f, infinity}), 3);
  EXPECT_EQ(FloatOf(ends[0]), 0.0f);
  EXPECT_EQ(FloatOf(ends[1]), 0.0f);
  EXPECT_EQ(FloatOf(ends[2]), infinity);
}

TEST_F(IntrinsicsTest, RsqrtAndDivisionAreWithinTwoUnits) {
  std::vector<float> values, pairs;
  for (int i = 0; i < 4000; ++i) {
    values.push_back(static_cast<float>(std::exp2(rng_.Uniform() * 240 - 120)));
    pairs.push_back(static_cast<float>(rng_.Normal()));
    pairs.push_back(static_cast<float>(std::exp2(rng_.Uniform() * 120 - 60)));
  }
  const Words roots = Run("rsqrt", 128, BitsOf(values), values.size());
  const Words ratios = Run("divide", 128, BitsOf(pairs), pairs.size() / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    ExpectWithin(3, FloatOf(roots[i]),
                 1 / std::sqrt(static_cast<double>(values[i])), values[i]);
    ExpectWithin(3, FloatOf(ratios[i]),
                 static_cast<double>(pairs[2 * i]) / pairs[2 * i + 1],
                 pairs[2 * i]);
  }
}

TEST_F(IntrinsicsTest, BitsAreCountedAndFound) {
  Words in = {0, 1, 0x80000000u, 0xFFFFFFFFu};
  for (int i = 0; i < 200; ++i) {
    in.push_back(static_cast<uint32_t>(rng_.NextUint64()) >> rng_.Below(31));
  }
  const Words out = Run("bits", 64, in, 4 * in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    const uint32_t x = in[i];
    ASSERT_EQ(out[4 * i], static_cast<uint32_t>(std::popcount(x)));
    ASSERT_EQ(out[4 * i + 1],
              x == 0 ? 0 : static_cast<uint32_t>(std::countr_zero(x)) + 1);
    ASSERT_EQ(out[4 * i + 2], static_cast<uint32_t>(std::countl_zero(x)));
    ASSERT_EQ(out[4 * i + 3],
              static_cast<uint32_t>(uint64_t{x} * 0x9E3779B9u >> 32));
  }
}

TEST_F(IntrinsicsTest, AccessesOfEverySizeBringWhatIsThere) {
  Words in;
  for (int i = 0; i < 512; ++i)
    in.push_back(static_cast<uint32_t>(rng_.NextUint64()));
  const Words out = Run("copy", 128, in, 6 * in.size());
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], in[i % in.size()]) << "copy " << i / in.size();
  }
}

TEST_F(IntrinsicsTest, AnAsynchronousCopyBringsSixteenBytesOrZeros) {
  Words in;
  for (int i = 0; i < 512; ++i)
    in.push_back(static_cast<uint32_t>(rng_.NextUint64()));
  const Words out = Run("async", 128, in, in.size());
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], i / 4 % 2 == 0 ? in[i] : 0) << i;
  }
}

TEST_F(IntrinsicsTest, AtomicSumsMissNobody) {
  EXPECT_EQ(Run("atomic", 128, {0}, 1)[0], 128u * 129 / 2);
}

TEST_F(IntrinsicsTest, ShufflesAndVotesSeeTheirLanes) {
  Words in;
  for (uint32_t i = 0; i < 32; ++i) in.push_back(100 + i * i);
  in[17] = 1;
  const Words out = Run("shuffle", 32, in, 6 * 32);
  uint32_t ballot = 0;
  for (size_t i = 0; i < 32; ++i) {
    ballot |= static_cast<uint32_t>(in[i] % 3 == 0) << i;
  }
  for (size_t lane = 0; lane < 32; ++lane) {
    SCOPED_TRACE(lane);
    EXPECT_EQ(out[lane], in[(lane * 7 + 3) % 32]);
    EXPECT_EQ(out[32 + lane], in[lane < 3 ? lane : lane - 3]);
    EXPECT_EQ(out[64 + lane], in[lane % 8 + 5 < 8 ? lane + 5 : lane]);
    EXPECT_EQ(out[96 + lane], in[lane ^ 9]);
    EXPECT_EQ(out[128 + lane], ballot);
    EXPECT_EQ(out[160 + lane], 1u) << "any is 1, not all are others";
  }
}

TEST_F(IntrinsicsTest, WarpReductionsAreTheSameInEveryLane) {
  std::vector<float> values;
  for (int i = 0; i < 32; ++i) {
    values.push_back(static_cast<float>(i * i % 37 - 11));  // exact sums
  }
  float sum = 0, most = values[0];
  for (const float x : values) {
    sum += x;
    most = std::max(most, x);
  }
  const Words out = Run("reduce", 32, BitsOf(values), 64);
  for (size_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(FloatOf(out[lane]), sum);
    EXPECT_EQ(FloatOf(out[32 + lane]), most);
  }
}

TEST_F(IntrinsicsTest, BarriersOfPartsAndOfTheBlock) {
  Words in;
  for (uint32_t i = 0; i < 128; ++i) in.push_back(i * 3);
  const Words out = Run("barrier", 128, in, 512);
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(out[i], in[i / 64 * 64 + (i + 1) % 64]);
    EXPECT_EQ(out[128 + i], 64u);
    EXPECT_EQ(out[256 + i] != 0, false);
    EXPECT_EQ(out[384 + i] != 0, true);
  }
}

// Element (row, col) of 16 x 16 bf16.
uint32_t At(const Words& matrix, size_t row, size_t col) {
  return matrix[row * 8 + col / 2] >> (col % 2 * 16) & 0xFFFF;
}

TEST_F(IntrinsicsTest, MatrixLoadsGiveEachLaneItsElements) {
  Words in;
  for (uint32_t i = 0; i < 128; ++i) in.push_back((2 * i + 1) << 16 | 2 * i);
  const Words out = Run("matrix", 32, in, 256);
  for (size_t lane = 0; lane < 32; ++lane) {
    for (size_t m = 0; m < 4; ++m) {
      const size_t row = m % 2 * 8, col = m / 2 * 8;
      const size_t g = lane / 4, t = lane % 4 * 2;
      ASSERT_EQ(out[lane * 8 + m],
                At(in, row + g, col + t) | At(in, row + g, col + t + 1) << 16)
          << lane << " " << m;
      ASSERT_EQ(out[lane * 8 + 4 + m],
                At(in, row + t, col + g) | At(in, row + t + 1, col + g) << 16)
          << lane << " " << m << " transposed";
    }
  }
}

TEST_F(IntrinsicsTest, AMatrixProductIsThatOfItsLayout) {
  // Small whole numbers: exact in every order of sums.
  const auto matrix = [&](size_t words) {
    Words m;
    for (size_t i = 0; i < words; ++i) {
      const auto number = [&] {
        return uint32_t{BF16FromFloat(static_cast<float>(rng_.Below(17)) - 8)};
      };
      const uint32_t low = number();
      m.push_back(number() << 16 | low);
    }
    return m;
  };
  const Words a = matrix(128), b = matrix(64);
  std::vector<float> c;
  for (int i = 0; i < 128; ++i) c.push_back(static_cast<float>(i) / 4);
  Words in = a;
  in.insert(in.end(), b.begin(), b.end());
  const Words c_bits = BitsOf(c);
  in.insert(in.end(), c_bits.begin(), c_bits.end());
  const Words out = Run("mma", 32, in, 128);
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      float sum = c[i * 8 + j];
      for (size_t k = 0; k < 16; ++k) {
        sum += FloatFromBF16(static_cast<uint16_t>(At(a, i, k))) *
               FloatFromBF16(static_cast<uint16_t>(At(b, j, k)));
      }
      ASSERT_EQ(FloatOf(out[i * 8 + j]), sum) << i << ", " << j;
    }
  }
}

}  // namespace
}  // namespace lorikeet::testing
