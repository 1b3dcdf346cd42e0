#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class RopeTest : public ::testing::TestWithParam<std::string> {
 protected:
  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{7};
};

TEST_P(RopeTest, MatchesReference) {
  for (const int64_t rows : kOddSizes) {
    for (const int64_t head_dim : {2, 6, 34, 64, 80, 128}) {
      Matrix expected = Matrix::Random(rng_, rows, 3 * head_dim);
      Matrix actual = expected.Clone();
      const Matrix before = expected.Clone();
      const std::vector<float> cos = RandomFloats(rng_, rows * head_dim / 2);
      const std::vector<float> sin = RandomFloats(rng_, rows * head_dim / 2);
      reference_->Rope(expected.view(), head_dim, cos.data(), sin.data(),
                       *stream_);
      cpu_->Rope(actual.view(), head_dim, cos.data(), sin.data(), *stream_);
      ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
        const int64_t half = head_dim / 2;
        const int64_t head = j / head_dim * head_dim;
        const size_t angle = static_cast<size_t>(i * half + j % half);
        const double pair = std::abs(before.At(i, head + j % half)) +
                            std::abs(before.At(i, head + j % half + half));
        return 4 * kEps * pair * (std::abs(cos[angle]) + std::abs(sin[angle]));
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, RopeTest, ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
