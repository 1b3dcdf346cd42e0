#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class EmbedTest : public ::testing::TestWithParam<std::string> {
 protected:
  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  Rng rng_{3};
};

TEST_P(EmbedTest, ReadsTheRowsOfAPackedTable) {
  for (const DType dtype : kDTypes) {
    for (const int64_t hidden : kOddSizes) {
      const Matrix table = Matrix::Random(rng_, 100, hidden, dtype);
      const auto packed = cpu_->PackWeight(table.view(), dtype);
      const std::vector<Token> tokens = {0, 99, 31, 32, 15, 16, 47, 48, 99};
      Matrix y(static_cast<int64_t>(tokens.size()), hidden);
      cpu_->Embed(*packed, tokens, y.view(), *stream_);
      for (size_t i = 0; i < tokens.size(); ++i) {
        for (int64_t j = 0; j < hidden; ++j) {
          const double expected = table.At(tokens[i], j);
          ASSERT_NEAR(y.At(static_cast<int64_t>(i), j), expected,
                      cpu_.operand_eps() * std::abs(expected));
        }
      }
    }
  }
}

TEST_P(EmbedTest, GathersRows) {
  const Matrix x = Matrix::Random(rng_, 10, 33, DType::kF32, 1, 3);
  const std::vector<int32_t> rows = {9, 0, 0, 4};
  Matrix y(4, 33);
  cpu_->GatherRows(x.view(), rows, y.view(), *stream_);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(std::memcmp(y.row(static_cast<int64_t>(i)), x.row(rows[i]),
                          33 * sizeof(float)),
              0);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, EmbedTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
