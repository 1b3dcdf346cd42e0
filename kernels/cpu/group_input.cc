// x of a group of linears in the forms that its weights are multiplied with:
// f32; rounded to bf16 (--compute-dtype bf16); 8 bits by blocks for int8
// weights. LoRA always reads the f32 form.

#include <cstring>

#include "base/check.h"
#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {

// Rows that lie a multiple of 2 KB apart compete for the same few lines of L1;
// such an x is copied to rows that begin in different lines.
ConstTensor CpuOps::SpreadRows(ConstTensor x) {
  constexpr int64_t kBadFloats = 512;
  constexpr int64_t kLineFloats = 16;
  if (x.rows < 2 || x.stride % kBadFloats != 0) return x;
  const int64_t stride = x.cols + kLineFloats;
  const Tensor copy{spread_.Get<float>(x.rows * stride), DType::kF32, x.rows,
                    x.cols, stride};
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(copy.f32(i), x.f32(i),
                  static_cast<size_t>(x.cols) * sizeof(float));
    }
  });
  return copy;
}

// bf16 weights are multiplied by x in bf16 if that was asked for.
bool CpuOps::RoundsInputOf(DType weight) const {
  return rounds_input_ && weight == DType::kBF16;
}

ConstTensor CpuOps::PrepareInput(ConstTensor x,
                                 std::span<const LinearPart> parts) {
  bool needs_f32 = false;
  bool needs_bf16 = false;
  bool needs_int8 = false;
  const auto meet = [&](const PackedWeight& weight) {
    const bool rounds = RoundsInputOf(weight.dtype());
    needs_bf16 |= rounds;
    needs_int8 |= weight.dtype() == DType::kI8;
    needs_f32 |= !rounds && weight.dtype() != DType::kI8;
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    meet(*parts[i].weight);
    for (const auto& range : overrides_[i]) {
      if (range.value != nullptr && range.value->weight != nullptr) {
        meet(*range.value->weight);
      }
    }
  }
  if (needs_f32) x = SpreadRows(x);
  input_.f32 = x;
  if (needs_bf16) RoundInput(x);
  if (needs_int8) QuantizeInput(x);
  return x;
}

void CpuOps::RoundInput(ConstTensor x) {
  // One line more than the columns: see SpreadRows.
  const int64_t stride = (x.cols + 63) / 32 * 32;
  uint16_t* to = rounded_.Get<uint16_t>(x.rows * stride);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.to_bf16(x.f32(i), x.cols, to + i * stride);
      to[i * stride + x.cols] = 0;
    }
  });
  input_.bf16 = to;
  input_.bf16_stride = stride;
}

void CpuOps::QuantizeInput(ConstTensor x) {
  const int64_t blocks = GroupsOf(x.cols);
  int8_t* q = quantized_[0].Get<int8_t>(x.rows * blocks * kInt8Block);
  float* scales = quantized_[1].Get<float>(x.rows * blocks);
  int32_t* offsets = quantized_[2].Get<int32_t>(x.rows * blocks);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.quantize_row(x.f32(i), x.cols, q + i * blocks * kInt8Block,
                            scales + i * blocks, offsets + i * blocks);
    }
  });
  input_.int8 = {q, scales, offsets, blocks};
}

void CpuOps::MultiplyPanels(const PackedWeight& weight, const PanelTask& task,
                            int64_t row_begin, int64_t row_end, float* y,
                            int64_t y_stride) {
  const Panels& panels = static_cast<const Weight&>(weight).panels;
  const int64_t rows = row_end - row_begin;
  const int64_t count = task.count;
  const char* first = panels.panel(task.panel);
  if (panels.dtype() == DType::kI8) {
    const Int8Rows& all = input_.int8;
    const Int8Rows x = {all.q + row_begin * all.blocks * kInt8Block,
                        all.scales + row_begin * all.blocks,
                        all.offsets + row_begin * all.blocks, all.blocks};
    kernels_.int8_gemm({x, rows, first, panels.cols(), count, y, y_stride});
    return;
  }
  if (RoundsInputOf(panels.dtype())) {
    kernels_.bf16_gemm({input_.bf16 + row_begin * input_.bf16_stride,
                        input_.bf16_stride, rows, first, panels.cols(), count,
                        y, y_stride});
    return;
  }
  PanelGemmArgs args;
  args.x = input_.f32.f32(row_begin);
  args.x_stride = input_.f32.stride;
  args.rows = rows;
  args.panels = first;
  args.dtype = panels.dtype();
  args.k = panels.cols();
  args.panel_count = count;
  args.y = y;
  args.y_stride = y_stride;
  kernels_.panel_gemm(args);
}

}  // namespace lorikeet::cpu
