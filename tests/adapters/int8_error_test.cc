#include "adapters/int8_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/lora_int8.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRank = 4, kIn = 70, kOut = 50;

// Owns what a module points to.
struct Owned {
  Owned(const std::string& name, float value) : Owned(name) {
    a.assign(a.size(), value);
    b.assign(b.size(), value);
  }
  Owned(const std::string& name, Rng& rng) : Owned(name) {
    for (float& x : a) x = static_cast<float>(rng.Normal());
    for (float& x : b) x = static_cast<float>(rng.Normal() * 0.01);
  }
  explicit Owned(const std::string& name)
      : a(static_cast<size_t>(kRank * kIn)),
        b(static_cast<size_t>(kOut * kRank)) {
    module.name = name;
    module.rank = kRank;
    module.scaling = 2;
    module.a = ConstTensor(a.data(), DType::kF32, kRank, kIn, kIn);
    module.b = ConstTensor(b.data(), DType::kF32, kOut, kRank, kRank);
  }
  std::vector<float> a, b;
  LoraModule module;
};

std::vector<double> Product(ConstTensor b, ConstTensor a) {
  std::vector<double> product;
  for (int64_t i = 0; i < b.rows; ++i) {
    for (int64_t k = 0; k < a.cols; ++k) {
      double sum = 0;
      for (int64_t r = 0; r < a.rows; ++r) {
        sum += static_cast<double>(b.At(i, r)) * a.At(r, k);
      }
      product.push_back(sum);
    }
  }
  return product;
}

double RelativeDifference(const LoraModule& m) {
  std::vector<float> a(static_cast<size_t>(kRank * kIn));
  std::vector<float> b(static_cast<size_t>(kOut * kRank));
  const Tensor a_view = Tensor::F32(a.data(), kRank, kIn);
  const Tensor b_view = Tensor::F32(b.data(), kOut, kRank);
  RoundLoraA(m.a, a_view);
  RoundLoraB(m.b, b_view);
  const std::vector<double> exact = Product(m.b, m.a);
  const std::vector<double> rounded = Product(b_view, a_view);
  double error = 0, update = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += (rounded[i] - exact[i]) * (rounded[i] - exact[i]);
    update += exact[i] * exact[i];
  }
  return std::sqrt(error / update);
}

TEST(Int8ErrorTest, EstimatesTheNormOfTheChangeOfTheUpdate) {
  Rng rng(1);
  const Owned owned("q", rng);
  AdapterWeights weights;
  weights.modules = {owned.module};
  const Int8Error error = MeasureInt8Error(weights);
  const double exact = RelativeDifference(owned.module);
  EXPECT_GT(exact, 1e-3);
  EXPECT_LT(exact, 2e-2);
  EXPECT_NEAR(error.overall, exact, 0.25 * exact);
  EXPECT_EQ(error.worst, error.overall);
  EXPECT_EQ(error.worst_module, "q");
}

TEST(Int8ErrorTest, IsZeroWhereEveryNumberFits) {
  const Owned owned("q", 127.0f);
  AdapterWeights weights;
  weights.modules = {owned.module};
  const Int8Error error = MeasureInt8Error(weights);
  EXPECT_EQ(error.overall, 0);
  EXPECT_EQ(error.worst_module, "");
  EXPECT_EQ(DescribeInt8Error(error),
            "A and B in 8 bits change the update by 0 %");
}

TEST(Int8ErrorTest, NamesTheLinearThatSuffersMost) {
  Rng rng(2);
  const Owned good("good", rng);
  Owned bad("bad", rng);
  for (size_t i = 0; i < bad.a.size(); i += 32) bad.a[i] *= 300;
  for (size_t i = 0; i < bad.b.size(); i += 5) bad.b[i] *= 300;
  AdapterWeights weights;
  weights.modules = {good.module, bad.module};
  const Int8Error error = MeasureInt8Error(weights);
  EXPECT_EQ(error.worst_module, "bad");
  EXPECT_GT(error.worst, MeasureInt8Error([&] {
                           AdapterWeights alone;
                           alone.modules = {good.module};
                           return alone;
                         }())
                             .worst);
  EXPECT_THAT(DescribeInt8Error(error), HasSubstr(", that of bad by "));
}

}  // namespace
}  // namespace lorikeet
