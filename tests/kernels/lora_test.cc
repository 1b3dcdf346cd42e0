#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr LinearId kLinear = {1, Projection::kO};
constexpr LinearId kOther = {0, Projection::kUp};

AdapterWeights RandomAdapter(Rng& rng, int64_t rank, int64_t in, int64_t out,
                             DType dtype, LinearId id = kLinear) {
  AdapterWeights w;
  w.id = id;
  w.a = Matrix::Random(rng, rank, in, dtype);
  w.b = Matrix::Random(rng, out, rank, dtype);
  w.scaling = 0.5f + static_cast<float>(rng.Uniform());
  return w;
}

// Adapters of these ranks on the same linear, packed for two backends.
struct Adapters {
  Adapters(Ops& cpu, Ops& reference, Rng& rng, std::vector<int64_t> ranks,
           int64_t in, int64_t out, DType dtype) {
    for (const int64_t rank : ranks) {
      std::vector<AdapterWeights> w;
      w.push_back(RandomAdapter(rng, rank, in, out, dtype));
      on_cpu.push_back(PackSlot(cpu, w));
      on_reference.push_back(PackSlot(reference, w));
      weights.push_back(std::move(w[0]));
    }
    // One that adapts another linear only.
    std::vector<AdapterWeights> w;
    w.push_back(RandomAdapter(rng, 4, in, out, dtype, kOther));
    on_cpu.push_back(PackSlot(cpu, w));
    on_reference.push_back(PackSlot(reference, w));
  }
  std::vector<AdapterWeights> weights;
  std::vector<LoraSlot> on_cpu, on_reference;
};

// Base rows between, adapter 0 twice, a composition, one that does not adapt.
LoraBatch MixedBatch(const std::vector<LoraSlot>& slots) {
  LoraBatch batch;
  batch.segments = {{0, 2, {{&slots[0], 1.0f}}},
                    {3, 4, {{&slots[1], 1.0f}}},
                    {4, 9, {{&slots[2], 0.5f}, {&slots[3], -2.0f}}},
                    {9, 10, {{&slots[6], 1.0f}}},
                    {12, 13, {{&slots[0], 1.0f}}},
                    {13, 17, {{&slots[4], 1.0f}, {&slots[5], 1.0f}}}};
  return batch;
}

const std::vector<int64_t> kRanks = {1, 3, 8, 16, 33, 64};
constexpr int64_t kRows = 18;

class LoraTest : public ::testing::TestWithParam<std::string> {
 protected:
  LoraTest() : cpu_(GetParam(), 2) {}

  Matrix Run(Ops& ops, const std::vector<LoraSlot>& slots, const Matrix& x,
             const Matrix& y) {
    const LoraBatch batch = MixedBatch(slots);
    std::vector<float> v(
        static_cast<size_t>(LoraLayout(kLinear, batch, nullptr)));
    ops.LoraShrink(kLinear, batch, x.view(), v.data(), stream_);
    Matrix out = y.Clone();
    ops.LoraExpand(kLinear, batch, v.data(), out.view(), stream_);
    return out;
  }

  CpuBackend cpu_;
  HostStream stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{21};
};

TEST_P(LoraTest, MixedRanksAndSegmentsMatchReference) {
  for (const DType dtype : kDTypes) {
    for (const int64_t in : {7, 64, 100, 513, 1100}) {
      for (const int64_t out : {1, 31, 64, 100}) {
        const Adapters adapters(*cpu_, *reference_, rng_, kRanks, in, out,
                                dtype);
        const Matrix x = Matrix::Random(rng_, kRows, in);
        const Matrix y = Matrix::Random(rng_, kRows, out);
        const Matrix expected = Run(*reference_, adapters.on_reference, x, y);
        const Matrix actual = Run(*cpu_, adapters.on_cpu, x, y);
        // Two sums after each other: in products, then at most 64; the
        // largest |scaling * scale| is 3.
        const double terms = static_cast<double>(in + 2 * 64 + 8);
        const double bound =
            3 * terms * kEps * 64 * 8 * std::sqrt(static_cast<double>(in)) * 8;
        ExpectNear(actual, expected, [&](int64_t, int64_t) { return bound; });
        ASSERT_FALSE(HasFailure())
            << Name(dtype) << " in " << in << " out " << out;
      }
    }
  }
}

TEST_P(LoraTest, RowsOutsideOfSegmentsAreNotTouched) {
  const Adapters adapters(*cpu_, *reference_, rng_, kRanks, 96, 64,
                          DType::kBF16);
  const Matrix x = Matrix::Random(rng_, kRows, 96);
  const Matrix y = Matrix::Random(rng_, kRows, 64);
  const Matrix out = Run(*cpu_, adapters.on_cpu, x, y);
  for (const int64_t row : {2, 9, 10, 11, 17}) {
    EXPECT_EQ(std::memcmp(out.row(row), y.row(row), 64 * sizeof(float)), 0)
        << row;
  }
  EXPECT_NE(std::memcmp(out.row(0), y.row(0), 64 * sizeof(float)), 0);
}

TEST_P(LoraTest, ARowKeepsItsBitsWhateverSharesTheBatch) {
  const Adapters adapters(*cpu_, *reference_, rng_, kRanks, 600, 130,
                          DType::kF32);
  const Matrix x = Matrix::Random(rng_, kRows, 600);
  const Matrix y = Matrix::Random(rng_, kRows, 130);
  const Matrix mixed = Run(*cpu_, adapters.on_cpu, x, y);
  const LoraBatch batch = MixedBatch(adapters.on_cpu);
  for (const int threads : {1, 3}) {
    CpuBackend other(GetParam(), threads);
    for (const LoraSegment& segment : batch.segments) {
      for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
        LoraBatch alone;
        alone.segments = {{0, 1, segment.terms}};
        std::vector<float> v(
            static_cast<size_t>(LoraLayout(kLinear, alone, nullptr)) + 1);
        const ConstTensor x_row = x.view().Rows(row, 1);
        other->LoraShrink(kLinear, alone, x_row, v.data(), stream_);
        Matrix out(1, 130);
        std::memcpy(out.row(0), y.row(row), 130 * sizeof(float));
        other->LoraExpand(kLinear, alone, v.data(), out.view(), stream_);
        ASSERT_EQ(std::memcmp(out.row(0), mixed.row(row), 130 * sizeof(float)),
                  0)
            << "row " << row << ", " << threads << " threads";
      }
    }
  }
}

TEST_P(LoraTest, NoSegmentsIsANoOp) {
  const Matrix x = Matrix::Random(rng_, 3, 32);
  Matrix y = Matrix::Random(rng_, 3, 32);
  const Matrix before = y.Clone();
  float v = 0;
  cpu_->LoraShrink(kLinear, {}, x.view(), &v, stream_);
  cpu_->LoraExpand(kLinear, {}, &v, y.view(), stream_);
  ExpectSameBits(y, before);
}

INSTANTIATE_TEST_SUITE_P(Targets, LoraTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
