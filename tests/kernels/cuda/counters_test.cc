// What the hot kernels move, counted by the emulated device, as ratios to the
// least that their shape needs. Counts are the same on every run.

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "kernels/train_ops.h"
#include "tests/cuda_on_host/emulated_backend.h"

namespace lorikeet::testing {
namespace {

using cuda_on_host::AccessCounters;
using cuda_on_host::KernelCounters;

constexpr int64_t kIn = 1024;
constexpr std::array<int64_t, 3> kOut = {1024, 256, 256};  // q, k, v
constexpr std::array<int64_t, 4> kRanks = {8, 16, 32, 64};
constexpr double kLeastUseful = 0.98;  // of the bytes from DRAM
constexpr double kMostSectors = 1.1;   // of the ideal, at any site

std::string PluginPath() { return CudaOnHostPath("checked"); }

std::vector<float> RandomFloats(Rng& rng, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(rng.Normal());
  return values;
}

class CudaCountersTest : public ::testing::Test {
 protected:
  CudaCountersTest() {
    ops_ = OpenCudaOnHost(PluginPath());
    control_ = &CudaOnHostControl(PluginPath());
    stream_ = ops_->NewStream();
  }
  ~CudaCountersTest() override {
    control_->options->count = false;
    ExpectNoFindings(*control_);
  }

  Tensor OnDevice(const std::vector<float>& values, int64_t rows) {
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
    auto memory = ops_->Allocate(bytes);
    CHECK(memory.ok());
    ops_->CopyIn(values.data(), (*memory)->data(), bytes, *stream_);
    memory_.push_back(*std::move(memory));
    return Tensor::F32(static_cast<float*>(memory_.back()->data()), rows,
                       static_cast<int64_t>(values.size()) / rows);
  }
  std::map<std::string, KernelCounters> Count(const std::function<void()>& f) {
    CHECK(stream_->Sync().ok());
    control_->options->count = true;
    control_->take_counters();
    f();
    CHECK(stream_->Sync().ok());
    control_->options->count = false;
    return control_->take_counters();
  }

  std::unique_ptr<Ops> ops_;
  const cuda_on_host::Control* control_ = nullptr;
  std::unique_ptr<Stream> stream_;
  std::vector<std::unique_ptr<Memory>> memory_;
  Rng rng_{31};
};

// Sectors or wavefronts against the ideal, at every site but those with less
// than a hundredth of the kernel's accesses (descriptions of tiles).
void ExpectCoalesced(const std::string& kernel, const KernelCounters& c) {
  const uint64_t all = c.global_load.units + c.global_store.units +
                       c.shared_load.units + c.shared_store.units;
  ASSERT_GT(all, 0u);
  for (const auto& [site, a] : c.sites) {
    if (a.units * 100 < all) continue;
    EXPECT_LE(static_cast<double>(a.units),
              kMostSectors * static_cast<double>(a.ideal))
        << kernel << " " << site << ": " << a.units << " for " << a.ideal;
  }
}

// A decode step of q, k and v, one row per adapter, ranks mixed.
TEST_F(CudaCountersTest, LoraReadsAdaptersOnceAndInWholeSectors) {
  std::vector<std::unique_ptr<PackedWeight>> weights;
  std::vector<LinearPart> parts;
  const std::array projections = {Projection::kQ, Projection::kK,
                                  Projection::kV};
  for (size_t p = 0; p < 3; ++p) {
    const std::vector<float> w = RandomFloats(rng_, kOut[p] * kIn);
    weights.push_back(ops_->PackWeight(
        ConstTensor(w.data(), DType::kF32, kOut[p], kIn, kIn), DType::kBF16));
    parts.push_back({{0, projections[p]}, weights.back().get()});
  }
  for (const int32_t adapters : {1, 4, 32}) {
    std::vector<LoraSlot> slots(static_cast<size_t>(adapters));
    LoraBatch lora;
    int64_t a_bytes = 0, b_bytes = 0, rank_sum = 0;
    for (int32_t i = 0; i < adapters; ++i) {
      const int64_t rank = kRanks[static_cast<size_t>(i) % kRanks.size()];
      LoraSlot& slot = slots[static_cast<size_t>(i)];
      slot.entries.resize(static_cast<size_t>(parts[2].id.index()) + 1);
      for (size_t p = 0; p < 3; ++p) {
        const std::vector<float> a = RandomFloats(rng_, rank * kIn);
        const std::vector<float> b = RandomFloats(rng_, kOut[p] * rank);
        slot.entries[static_cast<size_t>(parts[p].id.index())] = {
            ops_->PackLora(
                ConstTensor(a.data(), DType::kF32, rank, kIn, kIn),
                ConstTensor(b.data(), DType::kF32, kOut[p], rank, rank)),
            1.0f};
        a_bytes += 2 * rank * kIn;
        b_bytes += 2 * rank * kOut[p];
        rank_sum += rank;
      }
      lora.segments.push_back({i, i + 1, {{&slot, 1.0f}}});
    }
    const int64_t out_cols = kOut[0] + kOut[1] + kOut[2];
    const Tensor x = OnDevice(RandomFloats(rng_, adapters * kIn), adapters);
    const Tensor y =
        OnDevice(RandomFloats(rng_, adapters * out_cols), adapters);
    auto counters = Count(
        [&] { ops_->LinearGroup(x, parts, lora, Epilogue(), y, *stream_); });
    const KernelCounters& shrink = counters["LoraShrinkKernel"];
    const KernelCounters& expand = counters["LoraExpandKernel"];
    ASSERT_EQ(shrink.launches, 1u);  // for all three linears
    ASSERT_EQ(expand.launches, 1u);
    const int64_t v_bytes = (kIn + 511) / 512 * rank_sum * 4;
    const double shrink_useful =
        static_cast<double>(a_bytes + adapters * kIn * 2) /
        static_cast<double>(shrink.footprint_load_bytes);
    const double expand_useful =
        static_cast<double>(b_bytes + adapters * out_cols * 4 + v_bytes) /
        static_cast<double>(expand.footprint_load_bytes);
    std::printf(
        "%2d adapters: shrink %.3f of its bytes useful (%.3f of L2), expand "
        "%.3f (%.3f)\n",
        adapters, shrink_useful,
        static_cast<double>(a_bytes + adapters * kIn * 2) / 32 /
            static_cast<double>(shrink.global_load.units),
        expand_useful,
        static_cast<double>(b_bytes + adapters * out_cols * 4 + v_bytes) / 32 /
            static_cast<double>(expand.global_load.units));
    EXPECT_GE(shrink_useful, kLeastUseful);
    EXPECT_GE(expand_useful, kLeastUseful);
    ExpectCoalesced("shrink", shrink);
    ExpectCoalesced("expand", expand);
  }
}

// The batch-invariant product of a decode step, and one of a prefill.
TEST_F(CudaCountersTest, ProductsReadTheWeightsOnceAndInWholeSectors) {
  const auto ops = OpenCudaOnHost(PluginPath(), {.batch_invariant = true});
  const std::vector<float> w = RandomFloats(rng_, kOut[0] * kIn);
  const auto weight = ops->PackWeight(
      ConstTensor(w.data(), DType::kF32, kOut[0], kIn, kIn), DType::kBF16);
  // Rows of a tile, tiles of rows: W comes once for each.
  const std::array cases = {
      std::tuple{int64_t{8}, 1, "GemmKernel<2, 1, 2, 6>"},
      std::tuple{int64_t{128}, 2, "GemmKernel<4, 2, 8, 3>"}};
  for (const auto& [rows, row_tiles, kernel] : cases) {
    const Tensor x = OnDevice(RandomFloats(rng_, rows * kIn), rows);
    const Tensor y = OnDevice(RandomFloats(rng_, rows * kOut[0]), rows);
    auto counters = Count([&] { ops->Gemm(x, *weight, nullptr, y, *stream_); });
    const KernelCounters& c = counters[kernel];
    ASSERT_EQ(c.launches, 1u) << kernel;
    const double useful = static_cast<double>(2 * (kOut[0] + rows) * kIn) /
                          static_cast<double>(c.footprint_load_bytes);
    // mma of 16 x 8 x 16, over what the rows need.
    const double mma =
        static_cast<double>(c.mma) /
        static_cast<double>(kOut[0] / 16 * ((rows + 7) / 8) * kIn / 16);
    std::printf(
        "product of %3lld rows: %.3f of its bytes useful, %.2f times "
        "the least mma\n",
        static_cast<long long>(rows), useful, mma);
    EXPECT_GE(useful, kLeastUseful);
    EXPECT_LE(mma, rows <= 8 ? 2.0 : 1.0);
    EXPECT_LE(c.global_load.units,
              static_cast<uint64_t>(2 * kOut[0] * kIn * row_tiles +
                                    2 * rows * kIn * kOut[0] / 32) /
                  32);
    ExpectCoalesced(kernel, c);
  }
}

// Decode of a 135M model's layer: 9 heads over 3, one row per sequence.
TEST_F(CudaCountersTest, AttentionReadsTheCacheOnceAndInWholeSectors) {
  constexpr int64_t kHeads = 9, kKvHeads = 3, kDim = 64, kBlock = 32;
  constexpr int32_t kSequences = 4, kKeys = 300, kBlocks = 10;
  constexpr int64_t kStride = kKvHeads * kBlock * kDim;
  const std::vector<float> zeros(
      static_cast<size_t>(kSequences * kBlocks * kStride / 2));
  PagedKvView kv;
  kv.k = OnDevice(zeros, 1).data;  // bf16
  kv.v = OnDevice(zeros, 1).data;
  kv.dtype = DType::kBF16;
  kv.block_size = kBlock;
  kv.block_stride = kStride;
  kv.kv_heads = kKvHeads;
  kv.head_dim = kDim;
  std::vector<std::vector<int32_t>> tables(kSequences);
  std::vector<SequenceRows> sequences;
  for (int32_t s = 0; s < kSequences; ++s) {
    for (int32_t b = 0; b < kBlocks; ++b) {
      tables[static_cast<size_t>(s)].push_back(b * kSequences + s);
    }
    sequences.push_back({s, s + 1, kKeys - 1, tables[static_cast<size_t>(s)]});
  }
  const Tensor q =
      OnDevice(RandomFloats(rng_, kSequences * kHeads * kDim), kSequences);
  const Tensor y =
      OnDevice(RandomFloats(rng_, kSequences * kHeads * kDim), kSequences);
  auto counters = Count(
      [&] { ops_->PagedAttention(q, kv, sequences, 0.125f, 0, y, *stream_); });
  const KernelCounters& c = counters["AttentionKernel<64>"];
  ASSERT_EQ(c.launches, 1u);
  const double useful =
      static_cast<double>(kSequences * kKeys * kKvHeads * kDim * 2 * 2 +
                          kSequences * kHeads * kDim * 4) /
      static_cast<double>(c.footprint_load_bytes);
  std::printf("attention: %.3f of its bytes useful\n", useful);
  EXPECT_GE(useful, kLeastUseful);
  ExpectCoalesced("attention", c);
}

// The products of a low rank, forward and back, over 256 tokens, and one of
// trained weights.
TEST_F(CudaCountersTest, ProductsOfTrainingAreCoalescedAndWithoutConflicts) {
  const auto train = ops_->NewTrainOps().value();
  constexpr int64_t kTokens = 256, kRank = 8, kHidden = 512;
  struct Case {
    ProductForm form;
    int64_t m, n, k;
  };
  for (const Case& c : {Case{ProductForm::kNT, kTokens, kRank, kHidden},
                        Case{ProductForm::kNT, kTokens, kHidden, kRank},
                        Case{ProductForm::kNN, kTokens, kRank, kHidden},
                        Case{ProductForm::kNN, kTokens, kHidden, kRank},
                        Case{ProductForm::kTN, kHidden, kRank, kTokens},
                        Case{ProductForm::kTN, kRank, kHidden, kTokens},
                        Case{ProductForm::kTN, 128, 192, kTokens}}) {
    const bool is_tn = c.form == ProductForm::kTN;
    const bool is_nt = c.form == ProductForm::kNT;
    const Tensor a = OnDevice(RandomFloats(rng_, c.m * c.k), is_tn ? c.k : c.m);
    const Tensor b = OnDevice(RandomFloats(rng_, c.n * c.k), is_nt ? c.n : c.k);
    const Tensor y = OnDevice(RandomFloats(rng_, c.m * c.n), c.m);
    for (const auto& [kernel, counters] :
         Count([&] { train->Product(c.form, 1, a, b, false, y, *stream_); })) {
      SCOPED_TRACE(::testing::Message() << c.m << " " << c.n << " " << c.k);
      ExpectCoalesced(kernel, counters);
    }
  }
}

// Two sequences, 4 heads over 2.
TEST_F(CudaCountersTest, AttentionOfTrainingIsCoalescedAndWithoutConflicts) {
  const auto train = ops_->NewTrainOps().value();
  constexpr int64_t kDim = 64, kRows = 96;
  const AttentionHeads heads{4, 2, kDim, 0.125f, 0};
  const std::vector<SequenceRows> sequences = {{0, 64, 0, {}}, {64, 96, 0, {}}};
  const auto matrix = [&](int64_t cols) {
    return OnDevice(RandomFloats(rng_, kRows * cols), kRows);
  };
  const Tensor q = matrix(4 * kDim), k = matrix(2 * kDim), v = matrix(2 * kDim);
  const Tensor y = matrix(4 * kDim), dy = matrix(4 * kDim), lse = matrix(4);
  const Tensor dq = matrix(4 * kDim), dk = matrix(2 * kDim);
  const Tensor dv = matrix(2 * kDim);
  const auto counters = Count([&] {
    train->Attention(q, k, v, sequences, heads, y, lse, *stream_);
    train->AttentionBackward(q, k, v, y, lse, dy, sequences, heads, dq, dk, dv,
                             *stream_);
  });
  ASSERT_EQ(counters.size(), 4u);
  for (const auto& [kernel, c] : counters) ExpectCoalesced(kernel, c);
}

}  // namespace
}  // namespace lorikeet::testing
