// The fused group gives the bits of the composed primitives, in every epilogue,
// with and without LoRA, whatever rows share the step.

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kIn = 100;
constexpr int64_t kHeadDim = 20;
constexpr int64_t kHeads = 6;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kBlocks = 8;

class LinearGroupTest : public ::testing::TestWithParam<std::string> {
 protected:
  LinearGroupTest() {
    const std::pair<Projection, int64_t> linears[] = {
        {Projection::kQ, kHeads * kHeadDim},
        {Projection::kK, kKvHeads * kHeadDim},
        {Projection::kV, kKvHeads * kHeadDim},
        {Projection::kGate, 333},
        {Projection::kUp, 333},
        {Projection::kDown, 97}};
    for (const auto& [projection, out] : linears) {
      const LinearId id{0, projection};
      weights_.push_back(cpu_->PackWeight(
          Matrix::Random(rng_, out, kIn, DType::kBF16).view(), DType::kBF16));
      biases_.push_back(RandomFloats(rng_, out));
      const size_t i = biases_.size() - 1;
      parts_.push_back(
          {id, weights_[i].get(), i % 2 == 0 ? biases_[i].data() : nullptr});
      // k is not adapted by the first adapter.
      if (projection != Projection::kK) first_.push_back(Adapter(id, out, 16));
      second_.push_back(Adapter(id, out, 3));
    }
    slots_.push_back(PackSlot(*cpu_, first_));
    slots_.push_back(PackSlot(*cpu_, second_));
    AddOverrides();
    lora_.segments = {{0, 1, {{&slots_[0], 1}}},
                      {2, 6, {{&slots_[1], 1}, {&slots_[0], -0.5f}}},
                      {6, 7, {{&slots_[2], 1}}},
                      {7, 9, {{&slots_[3], 1}}},
                      {9, 30, {{&slots_[1], 2}}},
                      {30, 36, {{&slots_[3], 1}}},
                      {36, 47, {{&slots_[2], 1}}},
                      {47, 50, {{&slots_[1], 1}}},
                      {50, 51, {{&slots_[0], 1}}}};
    const int64_t block = kKvHeads * 32 * kHeadDim;
    k_cache_ = Matrix(kBlocks, block);
    v_cache_ = Matrix(kBlocks, block);
    cos_ = RandomFloats(rng_, 53 * kHeadDim / 2);
    sin_ = RandomFloats(rng_, 53 * kHeadDim / 2);
    norm_ = RandomFloats(rng_, 97);
    head_norm_ = RandomFloats(rng_, kHeadDim);
    rope_.cos = cos_.data();
    rope_.sin = sin_.data();
    rope_.q_norm = head_norm_.data();
    rope_.k_norm = head_norm_.data();
    rope_.eps = 1e-5f;
    rope_.kv = {k_cache_.view().data,
                v_cache_.view().data,
                DType::kF32,
                32,
                block,
                kKvHeads,
                kHeadDim};
    sequences_ = {{0, 1, 40, table_}, {1, 53, 3, table2_}};
    rope_.sequences = sequences_;
  }

  // A slot with gains and norms of its own, and one with weights and biases.
  void AddOverrides() {
    slots_.push_back(PackSlot(*cpu_, first_));
    slots_.emplace_back();
    for (LoraSlot* slot : {&slots_[2], &slots_[3]}) {
      slot->overrides.resize(static_cast<size_t>(parts_.back().id.index()) + 1);
      for (const LinearPart& part : parts_) {
        slot->overrides[static_cast<size_t>(part.id.index())] =
            std::make_unique<LoraSlot::Override>();
      }
    }
    for (const LinearPart& part : parts_) {
      const size_t i = static_cast<size_t>(part.id.index());
      const int64_t out = part.weight->out_dim();
      slots_[2].overrides[i]->gain = RandomFloats(rng_, out);
      if (part.id.projection == Projection::kV) continue;
      LoraSlot::Override& o = *slots_[3].overrides[i];
      o.weight =
          cpu_->PackWeight(Matrix::Random(rng_, out, kIn).view(), DType::kF32);
      o.bias = RandomFloats(rng_, out);
    }
    for (const NormId id : {rope_.q_norm_id, rope_.k_norm_id}) {
      slots_[2].norms.resize(8);
      slots_[2].norms[static_cast<size_t>(id.index())] =
          RandomFloats(rng_, kHeadDim);
    }
    slots_[3].norms.push_back(RandomFloats(rng_, 97));  // the final one
  }

  AdapterWeights Adapter(LinearId id, int64_t out, int64_t rank) {
    return {id, Matrix::Random(rng_, rank, kIn, DType::kBF16),
            Matrix::Random(rng_, out, rank), 0.25f};
  }

  // What a group leaves behind, as rows.
  struct Result {
    Matrix out;
    Matrix residual;
    Matrix k_cache;
    Matrix v_cache;
  };
  enum class How { kFused, kComposed };

  Result Run(How how, Epilogue::Kind kind, int64_t rows,
             const LoraBatch& lora) {
    return RunOn(cpu_, how, kind, rows, lora);
  }
  Result RunOn(CpuBackend& cpu, How how, Epilogue::Kind kind, int64_t rows,
               const LoraBatch& lora) {
    std::span<const LinearPart> parts(parts_);
    int64_t cols = 97;
    if (kind == Epilogue::Kind::kStore) {
      parts = parts.subspan(0, 5);
      cols = kHeadDim * (kHeads + 2 * kKvHeads) + 2 * 333;
    } else if (kind == Epilogue::Kind::kRopeKvAppend) {
      parts = parts.subspan(0, 3);
      cols = kHeads * kHeadDim;
    } else if (kind == Epilogue::Kind::kSiluMul) {
      parts = parts.subspan(3, 2);
      cols = 333;
    } else {
      parts = parts.subspan(5, 1);
    }
    Result result{Matrix(rows, cols), residual_.Clone(), {}, {}};
    k_cache_.Fill(0);
    v_cache_.Fill(0);
    Epilogue epilogue;
    epilogue.kind = kind;
    epilogue.rope = &rope_;
    epilogue.residual = result.residual.view().Rows(0, rows);
    epilogue.norm_weight = norm_.data();
    epilogue.norm_id = NormId::Final();
    epilogue.eps = 1e-5f;
    const Tensor x = x_.view().Rows(0, rows);
    if (how == How::kFused) {
      cpu->LinearGroup(x, parts, lora, epilogue, result.out.view(), *stream_);
    } else {
      (*cpu).Ops::LinearGroup(x, parts, lora, epilogue, result.out.view(),
                              *stream_);
    }
    result.k_cache = k_cache_.Clone();
    result.v_cache = v_cache_.Clone();
    return result;
  }

  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  Rng rng_{23};
  std::vector<std::unique_ptr<PackedWeight>> weights_;
  std::vector<std::vector<float>> biases_;
  std::vector<LinearPart> parts_;
  std::vector<AdapterWeights> first_;
  std::vector<AdapterWeights> second_;
  std::vector<LoraSlot> slots_;
  LoraBatch lora_;
  const Matrix x_ = Matrix::Random(rng_, 53, kIn, DType::kF32, 1, 7);
  const Matrix residual_ = Matrix::Random(rng_, 53, 97);
  Matrix k_cache_;
  Matrix v_cache_;
  std::vector<float> cos_, sin_, norm_, head_norm_;
  const std::vector<int32_t> table_ = {0, 1};
  const std::vector<int32_t> table2_ = {2, 3};
  std::vector<SequenceRows> sequences_;
  RopeKvAppend rope_{.q_norm_id = {0, NormId::Kind::kQ},
                     .k_norm_id = {0, NormId::Kind::kK}};
};

constexpr Epilogue::Kind kKinds[] = {
    Epilogue::Kind::kStore, Epilogue::Kind::kRopeKvAppend,
    Epilogue::Kind::kSiluMul, Epilogue::Kind::kResidualRmsNorm,
    Epilogue::Kind::kResidual};

TEST_P(LinearGroupTest, FusedIsTheCompositionBitForBit) {
  for (const Epilogue::Kind kind : kKinds) {
    for (const bool adapted : {false, true}) {
      SCOPED_TRACE(::testing::Message()
                   << "kind " << static_cast<int>(kind) << " lora " << adapted);
      const LoraBatch& lora = adapted ? lora_ : LoraBatch{};
      const Result fused = Run(How::kFused, kind, 53, lora);
      const Result composed = Run(How::kComposed, kind, 53, lora);
      ExpectSameBits(fused.out, composed.out);
      ExpectSameBits(fused.residual, composed.residual);
      ExpectSameBits(fused.k_cache, composed.k_cache);
      ExpectSameBits(fused.v_cache, composed.v_cache);
    }
  }
}

TEST_P(LinearGroupTest, ReplacedRowsAreFusedBitForBit) {
  LoraSlot::Override& o = *slots_[3].overrides[static_cast<size_t>(
      LinearId{0, Projection::kUp}.index())];
  o.replaced = {0, 31, 32, 332};
  o.rows = cpu_->PackWeight(Matrix::Random(rng_, 4, kIn).view(), DType::kF32);
  const Result fused = Run(How::kFused, Epilogue::Kind::kStore, 53, lora_);
  const Result composed =
      Run(How::kComposed, Epilogue::Kind::kStore, 53, lora_);
  ExpectSameBits(fused.out, composed.out);
}

TEST_P(LinearGroupTest, ARowKeepsItsBitsInASmallerBatch) {
  if (!cpu_.is_batch_invariant()) GTEST_SKIP() << "not promised";
  LoraBatch small;
  for (const LoraSegment& s : lora_.segments) {
    if (s.row_begin < 9) small.segments.push_back(s);
  }
  for (const Epilogue::Kind kind : kKinds) {
    const Result all = Run(How::kFused, kind, 53, lora_);
    sequences_ = {{0, 1, 40, table_}, {1, 9, 3, table2_}};
    rope_.sequences = sequences_;
    const Result some = Run(How::kFused, kind, 9, small);
    sequences_ = {{0, 1, 40, table_}, {1, 53, 3, table2_}};
    rope_.sequences = sequences_;
    for (int64_t i = 0; i < 9; ++i) {
      ASSERT_EQ(std::memcmp(some.out.row(i), all.out.row(i),
                            static_cast<size_t>(all.out.cols()) * 4),
                0);
      ASSERT_EQ(std::memcmp(some.residual.row(i), all.residual.row(i), 97 * 4),
                0);
    }
  }
}

TEST_P(LinearGroupTest, AnyNumberOfThreadsGivesTheSameBits) {
  for (const Epilogue::Kind kind : kKinds) {
    const Result two = Run(How::kFused, kind, 53, lora_);
    for (const int threads : {1, 3}) {
      CpuBackend other(GetParam(), threads);
      const Result result = RunOn(other, How::kFused, kind, 53, lora_);
      ExpectSameBits(result.out, two.out);
      ExpectSameBits(result.residual, two.residual);
      ExpectSameBits(result.k_cache, two.k_cache);
    }
  }
}

TEST_P(LinearGroupTest, AnUnadaptedRowBesideAdaptersHasTheBitsOfTheBase) {
  for (const Epilogue::Kind kind : kKinds) {
    const Result base = Run(How::kFused, kind, 53, {});
    const Result mixed = Run(How::kFused, kind, 53, lora_);
    for (const int64_t row : {1, 51, 52}) {
      EXPECT_EQ(std::memcmp(mixed.out.row(row), base.out.row(row),
                            static_cast<size_t>(base.out.cols()) * 4),
                0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LinearGroupTest,
                         ::testing::ValuesIn(BackendNamesOfProducts()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
