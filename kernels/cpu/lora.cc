// LoRA: shrink v = x A^T and expand y += s (v B^T).
//
// Shrink keeps lanes along k: within a piece of 512 each lane is one chain over
// its k (groups of 32 ascending, in a group by pairs of vectors), pieces are
// added in order, and the lanes of the total are summed once, in Highway's
// fixed order. The last group of x is read through a zero-padded copy.
//
// Expand is the GEMM of panels with k = rank; see gemm.cc.

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/lora.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int64_t kPieceGroups = 512 / kGroup;

template <DType kType, int kRanks>
HWY_INLINE void AddGroup(const float* x, const char* a, FloatVec* sum) {
  const FloatTag d;
  HWY_UNROLL(4)
  for (int u = 0; u < kUnits; ++u) {
    const FloatVec x_low = hn::LoadU(d, x + u * kLanes);
    const FloatVec x_high = hn::LoadU(d, x + u * kLanes + 16);
    HWY_UNROLL(8)
    for (int r = 0; r < kRanks; ++r) {
      FloatVec low;
      FloatVec high;
      LoadPair<kType>(a + r * LoraVectorBytes(kType), u, low, high);
      sum[r] = hn::MulAdd(x_low, low, sum[r]);
      sum[r] = hn::MulAdd(x_high, high, sum[r]);
    }
  }
}

template <DType kType, int kRanks>
void ShrinkRow(const ShrinkArgs& args, const float* x, const float* tail,
               float* v) {
  constexpr int64_t kStep = kRanks * LoraVectorBytes(kType);
  const FloatTag d;
  const int64_t full = args.k / kGroup;
  const int64_t groups = GroupsOf(args.k);
  FloatVec total[kRanks];
  for (int64_t begin = 0; begin < groups; begin += kPieceGroups) {
    const int64_t end = std::min(groups, begin + kPieceGroups);
    FloatVec sum[kRanks];
    HWY_UNROLL(8)
    for (int r = 0; r < kRanks; ++r) sum[r] = hn::Zero(d);
    const int64_t full_end = std::min(full, end);
    for (int64_t g = begin; g < full_end; ++g) {
      const char* a = args.block + g * kStep;
      HWY_UNROLL(8)
      for (int64_t b = 0; b < kStep; b += 64) hwy::Prefetch(a + 2048 + b);
      AddGroup<kType, kRanks>(x + g * kGroup, a, sum);
    }
    if (full < end) {
      AddGroup<kType, kRanks>(tail, args.block + full * kStep, sum);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRanks; ++r) {
      total[r] = begin == 0 ? sum[r] : hn::Add(total[r], sum[r]);
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRanks; ++r) {
    v[r] = hn::GetLane(hn::SumOfLanes(d, total[r]));
  }
}

template <DType kType, int kRanks>
void ShrinkRows(const ShrinkArgs& args) {
  HWY_ALIGN float tail[kGroup] = {};
  const int64_t full = args.k / kGroup * kGroup;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_stride;
    std::memcpy(tail, x + full,
                static_cast<size_t>(args.k - full) * sizeof(float));
    ShrinkRow<kType, kRanks>(args, x, tail, args.v + row * args.v_stride);
  }
}

template <DType kType>
void ShrinkOf(const ShrinkArgs& args) {
  switch (args.ranks) {
    case 1:
      return ShrinkRows<kType, 1>(args);
    case 2:
      return ShrinkRows<kType, 2>(args);
    case 4:
      return ShrinkRows<kType, 4>(args);
    case 8:
      return ShrinkRows<kType, 8>(args);
  }
}

void Shrink(const ShrinkArgs& args) {
  switch (args.dtype) {
    case DType::kF32:
      return ShrinkOf<DType::kF32>(args);
    case DType::kBF16:
      return ShrinkOf<DType::kBF16>(args);
    case DType::kF16:
      return ShrinkOf<DType::kF16>(args);
    case DType::kI8:
      return ShrinkOf<DType::kI8>(args);
  }
}

}  // namespace

void FillLoraOfTarget(KernelTable* table) { table->shrink = Shrink; }

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

// Rows of one shrink task: enough to reuse a block of A from cache, few enough
// to spread a long prompt over threads.
constexpr int64_t kShrinkRows = 32;
// Bytes that hide the latency of memory until the hardware runs ahead.
constexpr int64_t kBlockStart = 2048;

// Not to L1: there it would displace what is in use.
void PrefetchToL2(const char* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(begin + i, /*rw=*/0, /*locality=*/2);
  }
}

}  // namespace

HWY_EXPORT(FillLoraOfTarget);

void FillLora(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillLoraOfTarget)(&table);
}

int64_t CpuOps::CollectLora(LinearId id, const LoraBatch& lora, float* v,
                            std::vector<LoraWork>& work) {
  int64_t used = 0;
  for (const LoraSegment& segment : lora.segments) {
    for (const LoraTerm& term : segment.terms) {
      const LoraSlot::Entry* entry = term.slot->Find(id);
      if (entry == nullptr) continue;
      const auto& weights = static_cast<const Lora&>(*entry->weights);
      work.push_back({segment.row_begin, segment.row_end, &weights,
                      entry->scaling * term.scale, v + used});
      used += (segment.row_end - segment.row_begin) * weights.rank();
    }
  }
  return used;
}

void CpuOps::CollectShrink(const std::vector<LoraWork>& work) {
  for (const LoraWork& w : work) {
    const int64_t rank = w.weights->rank();
    for (int64_t r = 0; r < rank;) {
      const int64_t size = RankBlocks::BlockSize(rank - r);
      for (int64_t row = w.row_begin; row < w.row_end; row += kShrinkRows) {
        float* v = const_cast<float*>(w.v) + (row - w.row_begin) * rank + r;
        shrink_tasks_.push_back({w.weights, r, size, row,
                                 std::min(kShrinkRows, w.row_end - row), v});
      }
      r += size;
    }
  }
}

void CpuOps::RunShrink(ConstTensor x) {
  const int64_t count = static_cast<int64_t>(shrink_tasks_.size());
  pool_.ParallelFor(count, /*grain=*/2, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const ShrinkTask& task = shrink_tasks_[static_cast<size_t>(i)];
      const RankBlocks& a = task.weights->a;
      CHECK_EQ(a.in_dim(), x.cols);
      if (i + 1 < count) {
        // A block is short: the start of the next one would be waited for.
        const ShrinkTask& next = shrink_tasks_[static_cast<size_t>(i) + 1];
        PrefetchToL2(next.weights->a.block(next.rank_begin), kBlockStart);
      }
      kernels_.shrink({x.f32(task.row_begin), x.stride, task.row_count,
                       a.block(task.rank_begin), a.dtype(), task.ranks,
                       a.in_dim(), task.v, a.ranks()});
    }
  });
}

void CpuOps::ExpandPanels(const std::vector<LoraWork>& work, int64_t row_begin,
                          int64_t row_end, int64_t panel, int64_t count,
                          float* y, int64_t y_stride) {
  for (const LoraWork& w : work) {
    const int64_t begin = std::max(row_begin, w.row_begin);
    const int64_t end = std::min(row_end, w.row_end);
    if (begin >= end) continue;
    const Panels& b = w.weights->b;
    PanelGemmArgs args;
    args.x = w.v + (begin - w.row_begin) * b.cols();
    args.x_stride = b.cols();
    args.rows = end - begin;
    args.panels = b.panel(panel);
    args.dtype = b.dtype();
    args.k = b.cols();
    args.panel_count = count;
    args.y = y + (begin - row_begin) * y_stride;
    args.y_stride = y_stride;
    args.accumulate = true;
    args.scale = w.scale;
    kernels_.panel_gemm(args);
  }
}

void CpuOps::PrefetchExpand(const std::vector<LoraWork>& work, int64_t panel,
                            int64_t count) {
  // Beyond this many bytes the prefetched lines would displace each other.
  constexpr int64_t kMaxBytes = 32768;
  int64_t left = kMaxBytes;
  for (const LoraWork& w : work) {
    const char* b = w.weights->b.panel(panel);
    const int64_t bytes = count * w.weights->b.panel_bytes();
    if ((left -= bytes) < 0) return;
    PrefetchToL2(b, bytes);
  }
}

void CpuOps::LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x,
                        float* v, Stream&) {
  lora_.resize(std::max<size_t>(lora_.size(), 1));
  lora_[0].clear();
  shrink_tasks_.clear();
  if (x.rows == 0) return;
  CollectLora(id, lora, v, lora_[0]);
  CollectShrink(lora_[0]);
  RunShrink(x);
}

void CpuOps::LoraExpand(LinearId id, const LoraBatch& lora, const float* v,
                        Tensor y, Stream&) {
  lora_.resize(std::max<size_t>(lora_.size(), 1));
  lora_[0].clear();
  if (y.rows == 0) return;
  CollectLora(id, lora, const_cast<float*>(v), lora_[0]);
  if (lora_[0].empty()) return;
  for (const LoraWork& w : lora_[0]) CHECK_EQ(w.weights->out_dim(), y.cols);
  pool_.ParallelFor(
      GroupsOf(y.cols), /*grain=*/2,
      [&](int64_t begin, int64_t end, int worker) {
        // Whole panels in place; a last partial one through a copy.
        const int64_t whole = std::min(end, y.cols / kGroup);
        if (begin < whole) {
          ExpandPanels(lora_[0], 0, y.rows, begin, whole - begin,
                       y.f32(0) + begin * kGroup, y.stride);
        }
        if (whole == end) return;
        const size_t bytes =
            static_cast<size_t>(y.cols % kGroup) * sizeof(float);
        float* copy =
            tiles_[static_cast<size_t>(worker)].Get<float>(y.rows * kGroup);
        for (int64_t i = 0; i < y.rows; ++i) {
          std::memcpy(copy + i * kGroup, y.f32(i) + whole * kGroup, bytes);
        }
        ExpandPanels(lora_[0], 0, y.rows, whole, 1, copy, kGroup);
        for (int64_t i = 0; i < y.rows; ++i) {
          std::memcpy(y.f32(i) + whole * kGroup, copy + i * kGroup, bytes);
        }
      });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
