#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kRows = 13, kIn = 200;

// Fused groups against the composed default, both on the CPU backend.
class LinearGroupTest : public ::testing::TestWithParam<std::string> {
 protected:
  LinearGroupTest() : cpu_(GetParam(), 2) {
    for (const int64_t rank : {3, 16}) {
      std::vector<AdapterWeights> w;
      for (int p = 0; p < kNumProjections; ++p) {
        // The second adapter leaves V and up alone.
        const auto projection = static_cast<Projection>(p);
        if (rank == 16 &&
            (projection == Projection::kV || projection == Projection::kUp)) {
          continue;
        }
        AdapterWeights one;
        one.id = {0, projection};
        one.a = Matrix::Random(rng_, rank, kIn, DType::kBF16);
        one.b = Matrix::Random(rng_, OutDim(projection), rank, DType::kBF16);
        one.scaling = 0.7f;
        w.push_back(std::move(one));
      }
      slots_.push_back(PackSlot(*cpu_, w));
    }
    lora_.segments = {{1, 4, {{&slots_[0], 1.0f}}},
                      {4, 5, {{&slots_[1], 1.5f}}},
                      {7, 13, {{&slots_[0], 1.0f}, {&slots_[1], 1.0f}}}};
  }

  static int64_t OutDim(Projection p) {
    switch (p) {
      case Projection::kK:
      case Projection::kV:
        return 32;
      case Projection::kQ:
        return 96;
      case Projection::kGate:
      case Projection::kUp:
        return 150;
      default:
        return 200;
    }
  }

  std::vector<LinearPart> Parts(std::initializer_list<Projection> list) {
    std::vector<LinearPart> parts;
    for (const Projection p : list) {
      const Matrix w = Matrix::Random(rng_, OutDim(p), kIn, DType::kBF16);
      weights_.push_back(cpu_->PackWeight(w.view(), DType::kBF16));
      biases_.push_back(RandomFloats(rng_, OutDim(p)));
      parts.push_back({{0, p}, weights_.back().get(), nullptr});
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      // The first part has a bias.
      if (i == 0) parts[0].bias = biases_[biases_.size() - parts.size()].data();
    }
    return parts;
  }

  CpuBackend cpu_;
  HostStream stream_;
  Rng rng_{31};
  std::vector<LoraSlot> slots_;
  LoraBatch lora_;
  std::vector<std::unique_ptr<PackedWeight>> weights_;
  std::vector<std::vector<float>> biases_;
};

TEST_P(LinearGroupTest, StoreHasTheBitsOfTheComposedOperators) {
  const auto parts = Parts({Projection::kQ, Projection::kK, Projection::kV});
  const Matrix x = Matrix::Random(rng_, kRows, kIn);
  Matrix fused(kRows, 160), composed(kRows, 160);
  cpu_->LinearGroup(x.view(), parts, lora_, {}, fused.view(), stream_);
  cpu_->Ops::LinearGroup(x.view(), parts, lora_, {}, composed.view(), stream_);
  ExpectSameBits(fused, composed);
}

TEST_P(LinearGroupTest, SiluMulHasTheBitsOfTheComposedOperators) {
  const auto parts = Parts({Projection::kGate, Projection::kUp});
  const Matrix x = Matrix::Random(rng_, kRows, kIn);
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kSiluMul;
  Matrix fused(kRows, 150), composed(kRows, 150);
  cpu_->LinearGroup(x.view(), parts, lora_, epilogue, fused.view(), stream_);
  cpu_->Ops::LinearGroup(x.view(), parts, lora_, epilogue, composed.view(),
                         stream_);
  ExpectSameBits(fused, composed);
}

TEST_P(LinearGroupTest, ResidualRmsNormHasTheBitsOfTheComposedOperators) {
  const auto parts = Parts({Projection::kO});
  const Matrix x = Matrix::Random(rng_, kRows, kIn);
  const std::vector<float> norm = RandomFloats(rng_, 200);
  const Matrix residual = Matrix::Random(rng_, kRows, 200);
  Matrix fused(kRows, 200), composed(kRows, 200);
  const Matrix r1 = residual.Clone(), r2 = residual.Clone();
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kResidualRmsNorm;
  epilogue.norm_weight = norm.data();
  epilogue.eps = 1e-5f;
  epilogue.residual = r1.view();
  cpu_->LinearGroup(x.view(), parts, lora_, epilogue, fused.view(), stream_);
  epilogue.residual = r2.view();
  cpu_->Ops::LinearGroup(x.view(), parts, lora_, epilogue, composed.view(),
                         stream_);
  ExpectSameBits(fused, composed);
  ExpectSameBits(r1, r2);
}

TEST_P(LinearGroupTest, ARowKeepsItsBitsAloneAndForAnyThreads) {
  const auto parts = Parts({Projection::kGate, Projection::kUp});
  const Matrix x = Matrix::Random(rng_, kRows, kIn);
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kSiluMul;
  Matrix all(kRows, 150);
  cpu_->LinearGroup(x.view(), parts, lora_, epilogue, all.view(), stream_);
  for (const int threads : {1, 3}) {
    CpuBackend other(GetParam(), threads);
    for (int32_t row = 0; row < kRows; ++row) {
      LoraBatch alone;
      for (const LoraSegment& s : lora_.segments) {
        if (row >= s.row_begin && row < s.row_end) {
          alone.segments = {{0, 1, s.terms}};
        }
      }
      Matrix y(1, 150);
      other->LinearGroup(x.view().Rows(row, 1), parts, alone, epilogue,
                         y.view(), stream_);
      ASSERT_EQ(std::memcmp(y.row(0), all.row(row), 150 * sizeof(float)), 0)
          << "row " << row << ", " << threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LinearGroupTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
