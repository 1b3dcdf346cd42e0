#include "adapters/adapter_norms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/reason.h"

namespace lorikeet {
namespace {

// A of [2, 8] and B of [8, 2], all `value`.
AdapterWeights Weights(float value, double scaling) {
  AdapterWeights weights;
  Buffer a(16 * 4), b(16 * 4);
  std::fill_n(reinterpret_cast<float*>(a.data()), 16, value);
  std::fill_n(reinterpret_cast<float*>(b.data()), 16, value);
  LoraModule module;
  module.name = "model.layers.0.self_attn.q_proj";
  module.rank = 2;
  module.scaling = scaling;
  module.a = ConstTensor(a.data(), DType::kF32, 2, 8, 8);
  module.b = ConstTensor(b.data(), DType::kF32, 8, 2, 2);
  weights.modules.push_back(module);
  weights.storage.push_back(std::move(a));
  weights.storage.push_back(std::move(b));
  return weights;
}

TEST(AdapterNormsTest, TakesWeightsThatCanBeMeant) {
  EXPECT_TRUE(CheckNorms(Weights(0, 1)).ok());
  EXPECT_TRUE(CheckNorms(Weights(1, 2)).ok());
  EXPECT_TRUE(CheckNorms(Weights(1, -2)).ok());
  EXPECT_TRUE(CheckNorms(AdapterWeights()).ok());
}

TEST(AdapterNormsTest, NamesTheModuleThatWouldDrownTheBase) {
  // |A| = |B| = 4 v, so the bound is 2 s v^2.
  EXPECT_TRUE(CheckNorms(Weights(22, 1)).ok());
  const absl::Status status = CheckNorms(Weights(23, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "ADAPTER_INVALID");
  EXPECT_EQ(status.message(),
            "module model.layers.0.self_attn.q_proj: scaling x |A| x |B| makes "
            "weights of 1058 on average, the limit is 1000");
  EXPECT_FALSE(CheckNorms(Weights(1, -501)).ok());
}

TEST(AdapterNormsTest, RefusesNormsThatAreNoNumbers) {
  EXPECT_FALSE(
      CheckNorms(Weights(std::numeric_limits<float>::quiet_NaN(), 1)).ok());
  EXPECT_FALSE(
      CheckNorms(Weights(std::numeric_limits<float>::infinity(), 1)).ok());
  EXPECT_FALSE(CheckNorms(Weights(0, std::nan(""))).ok());
}

}  // namespace
}  // namespace lorikeet
