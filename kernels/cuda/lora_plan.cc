#include "kernels/cuda/lora_plan.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/packed.h"

namespace lorikeet::cuda {
namespace {

constexpr int32_t kTile = 16;  // rank rows, and rows of x or y

LoraTermArgs::Part PartOf(const LoraSlot::Entry& entry, float scale) {
  const CudaLora& lora = static_cast<const CudaLora&>(*entry.weights);
  LoraTermArgs::Part part;
  part.a = lora.a();
  part.b = lora.b();
  part.rank = static_cast<int32_t>(lora.rank());
  part.a_stride = static_cast<int32_t>(lora.a_stride());
  part.b_stride = static_cast<int32_t>(lora.b_stride());
  part.scale = entry.scaling * scale;
  return part;
}

// Calls fn(first row, row count) for each tile of rows of a segment.
template <typename Fn>
void ForEachRowTile(const LoraSegment& segment, const Fn& fn) {
  for (int32_t row = segment.row_begin; row < segment.row_end; row += kTile) {
    fn(row, std::min(kTile, segment.row_end - row));
  }
}

void AddTerm(std::span<const std::optional<LinearId>> linears,
             const LoraSegment& segment, const LoraTerm& term, LoraPlan* plan) {
  LoraTermArgs args;
  args.row_begin = segment.row_begin;
  const int64_t rows = segment.row_end - segment.row_begin;
  for (size_t i = 0; i < linears.size(); ++i) {
    if (!linears[i].has_value()) continue;
    const LoraSlot::Entry* const entry = term.slot->Find(*linears[i]);
    if (entry == nullptr) continue;
    LoraTermArgs::Part& part = args.parts[i];
    part = PartOf(*entry, term.scale);
    part.v_begin = plan->v_size;
    plan->v_size += rows * part.rank;
    args.rank_sum += part.rank;
  }
  if (args.rank_sum == 0) return;
  const int32_t index = static_cast<int32_t>(plan->terms.size());
  plan->terms.push_back(args);
  for (int32_t rank = 0; rank < args.rank_sum; rank += kTile) {
    ForEachRowTile(segment, [&](int32_t row, int32_t count) {
      plan->shrink.push_back({index, rank, row, count});
    });
  }
}

}  // namespace

LoraPlan PlanLora(std::span<const std::optional<LinearId>> linears,
                  const LoraBatch& lora) {
  CHECK_LE(linears.size(), static_cast<size_t>(kMaxLoraParts));
  LoraPlan plan;
  for (const LoraSegment& segment : lora.segments) {
    const int32_t first = static_cast<int32_t>(plan.terms.size());
    for (const LoraTerm& term : segment.terms) {
      AddTerm(linears, segment, term, &plan);
    }
    const int32_t count = static_cast<int32_t>(plan.terms.size()) - first;
    if (count == 0) continue;
    ForEachRowTile(segment, [&](int32_t row, int32_t rows) {
      plan.expand.push_back({first, count, row, rows});
    });
  }
  return plan;
}

}  // namespace lorikeet::cuda
