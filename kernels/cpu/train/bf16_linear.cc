// Linear and LinearBackward with compute dtype bf16: x or dy is rounded to bf16
// once, and meets bf16 weights in the CPU's bf16 dot products, at twice the
// speed of f32. Of the backward product 32 columns of every panel are brought
// into the form that a panel has, pairs of outputs side by side; nothing is
// widened.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/train/operators.h"

namespace lorikeet::cpu {
namespace {

// Outputs whose columns are kept at once: 128 KB, a part of L2.
constexpr int64_t kPiece = 2048;

}  // namespace

bool CpuTrainOps::RoundsInputOf(const TrainMatrix& w) const {
  return rounds_input_ && w.packed != nullptr &&
         w.packed->dtype() == DType::kBF16;
}

// Rows are padded with zeros to an even length.
Bf16GemmArgs CpuTrainOps::RoundInput(ConstTensor x) {
  const int64_t stride = (x.cols + kGroup - 1) / kGroup * kGroup;
  uint16_t* rounded = rounded_.Get<uint16_t>(x.rows * stride);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      uint16_t* row = rounded + i * stride;
      kernels_.to_bf16(x.f32(i), x.cols, row);
      std::fill(row + x.cols, row + stride, uint16_t{0});
    }
  });
  Bf16GemmArgs args;
  args.x = rounded;
  args.x_stride = stride;
  args.rows = x.rows;
  args.k = x.cols;
  args.panel_count = 1;
  return args;
}

void CpuTrainOps::MultiplyPanel(Bf16GemmArgs args, bool accumulate,
                                int64_t panel, float* tile, Tensor y) {
  const int64_t cols = std::min(kGroup, y.cols - panel * kGroup);
  float* to = y.f32(0) + panel * kGroup;
  if (cols == kGroup && !accumulate) {
    args.y = to;
    args.y_stride = y.stride;
    return kernels_.bf16_gemm(args);
  }
  args.y = tile;
  args.y_stride = kGroup;
  kernels_.bf16_gemm(args);
  for (int64_t i = 0; i < args.rows; ++i) {
    const float* from = tile + i * kGroup;
    if (accumulate) {
      kernels_.add(from, cols, to + i * y.stride);
    } else {
      std::memcpy(to + i * y.stride, from,
                  static_cast<size_t>(cols) * sizeof(float));
    }
  }
}

void CpuTrainOps::LinearBf16(ConstTensor x, const TrainMatrix& w,
                             const float* bias, Tensor y) {
  const Panels& panels = PanelsOf(w);
  const Bf16GemmArgs args = RoundInput(x);
  pool_.ParallelFor(
      panels.count(), 1, [&](int64_t begin, int64_t end, int worker) {
        float* tile = scratch(worker, x.rows * kGroup);
        for (int64_t p = begin; p < end; ++p) {
          Bf16GemmArgs own = args;
          own.panels = panels.panel(p);
          MultiplyPanel(own, false, p, tile, y);
          if (bias == nullptr) continue;
          const int64_t cols = std::min(kGroup, y.cols - p * kGroup);
          for (int64_t i = 0; i < x.rows; ++i) {
            kernels_.add(bias + p * kGroup, cols, y.f32(i) + p * kGroup);
          }
        }
      });
}

void CpuTrainOps::LinearBackwardBf16(ConstTensor dy, const TrainMatrix& w,
                                     bool accumulate, Tensor dx) {
  const Panels& panels = PanelsOf(w);
  const Bf16GemmArgs args = RoundInput(dy);
  pool_.ParallelFor(
      GroupsOf(dx.cols), 1, [&](int64_t begin, int64_t end, int worker) {
        float* memory = scratch(worker, (kPiece / 2 + dy.rows) * kGroup);
        uint16_t* pairs = reinterpret_cast<uint16_t*>(memory);
        float* tile = memory + kPiece / 2 * kGroup;
        for (int64_t p = begin; p < end; ++p) {
          for (int64_t first = 0; first < dy.cols; first += kPiece) {
            Bf16GemmArgs own = args;
            own.x += first;
            // Missing outputs of the last panel are zero, and so is x there.
            own.k = GroupsOf(std::min(kPiece, dy.cols - first)) * kGroup;
            train_.pair_columns(panels, first / kGroup,
                                (first + own.k) / kGroup, p * kGroup, pairs);
            own.panels = reinterpret_cast<const char*>(pairs);
            MultiplyPanel(own, accumulate || first > 0, p, tile, dx);
          }
        }
      });
}

}  // namespace lorikeet::cpu
