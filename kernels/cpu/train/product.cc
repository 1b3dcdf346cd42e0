// Products over panels of 32 columns of the result. A worker brings the right
// operand of a panel into its scratch memory as [k][32] f32, unless it lies
// like that already, and multiplies all rows of x by it while it is in cache.
//
//   Linear          a panel of W: its 32 outputs, all k
//   LinearBackward  32 columns of W from every panel, in pieces of kPiece
//                   outputs; the pieces are one chain of sums, ascending
//   Product         rows are cut too, since a low-rank result has one panel
//
// Limit: FMA units; a weight is widened once for all tokens of the batch, some
// 3 % of the time at 512 tokens.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/train/operators.h"

namespace lorikeet::cpu {
namespace {

// Outputs whose widened columns are kept at once: 128 KB, a part of L2.
constexpr int64_t kPiece = 1024;
// Rows of a task of Product: four of the tallest tiles.
constexpr int64_t kTaskRows = 48;

TileProductArgs RowsOf(ConstTensor x) {
  TileProductArgs args;
  args.x = x.f32(0);
  args.x_row = x.stride;
  args.k = x.cols;
  return args;
}

// Columns [32 * panel, + cols) of m [rows, ...] as [rows][32], zero beyond.
void CopyColumns(ConstTensor m, int64_t panel, int64_t cols, float* out) {
  for (int64_t i = 0; i < m.rows; ++i, out += kGroup) {
    std::memcpy(out, m.f32(i) + panel * kGroup,
                static_cast<size_t>(cols) * sizeof(float));
    std::fill(out + cols, out + kGroup, 0.0f);
  }
}

}  // namespace

void CpuTrainOps::MultiplyRows(TileProductArgs args, int64_t row_begin,
                               int64_t row_end, int64_t panel, Tensor c) {
  args.x += row_begin * args.x_row;
  args.rows = row_end - row_begin;
  args.cols = std::min(kGroup, c.cols - panel * kGroup);
  args.y = c.f32(row_begin) + panel * kGroup;
  args.y_row = c.stride;
  train_.tile_product(args);
}

void CpuTrainOps::WidenPanel(const TrainMatrix& w, int64_t panel, float* out) {
  if (w.packed != nullptr) {
    return train_.widen_panel(PanelsOf(w), panel, out);
  }
  const int64_t rows = std::min(kGroup, w.plain.rows - panel * kGroup);
  train_.transpose(w.plain.f32(panel * kGroup), w.plain.stride, rows,
                   w.plain.cols, out);
}

void CpuTrainOps::Linear(ConstTensor x, const TrainMatrix& w, const float* bias,
                         Tensor y, Stream&) {
  CHECK_EQ(x.cols, w.in_dim());
  CHECK_EQ(y.cols, w.out_dim());
  CHECK_EQ(x.rows, y.rows);
  if (x.rows == 0) return;
  if (RoundsInputOf(w)) return LinearBf16(x, w, bias, y);
  pool_.ParallelFor(
      GroupsOf(y.cols), 1, [&](int64_t begin, int64_t end, int worker) {
        float* wide = scratch(worker, x.cols * kGroup);
        for (int64_t p = begin; p < end; ++p) {
          const int64_t cols = std::min(kGroup, y.cols - p * kGroup);
          WidenPanel(w, p, wide);
          TileProductArgs args = RowsOf(x);
          args.w = wide;
          MultiplyRows(args, 0, x.rows, p, y);
          for (int64_t i = 0; bias != nullptr && i < x.rows; ++i) {
            kernels_.add(bias + p * kGroup, cols, y.f32(i) + p * kGroup);
          }
        }
      });
}

void CpuTrainOps::LinearBackward(ConstTensor dy, const TrainMatrix& w,
                                 bool accumulate, Tensor dx, Stream&) {
  CHECK_EQ(dy.cols, w.out_dim());
  CHECK_EQ(dx.cols, w.in_dim());
  CHECK_EQ(dy.rows, dx.rows);
  if (dy.rows == 0) return;
  if (RoundsInputOf(w)) return LinearBackwardBf16(dy, w, accumulate, dx);
  pool_.ParallelFor(
      GroupsOf(dx.cols), 1, [&](int64_t begin, int64_t end, int worker) {
        float* wide = scratch(worker, kPiece * kGroup);
        for (int64_t p = begin; p < end; ++p) {
          for (int64_t first = 0; first < dy.cols; first += kPiece) {
            TileProductArgs args = RowsOf(dy);
            args.x += first;
            args.k = std::min(kPiece, dy.cols - first);
            args.accumulate = accumulate || first > 0;
            args.w = wide;
            if (w.packed != nullptr) {
              train_.widen_columns(PanelsOf(w), first / kGroup,
                                   GroupsOf(first + args.k), p * kGroup, wide);
            } else if ((p + 1) * kGroup <= dx.cols) {
              args.w = w.plain.f32(first) + p * kGroup;
              args.w_k = w.plain.stride;
            } else {
              ConstTensor rows = w.plain;
              rows.data = w.plain.f32(first);
              rows.rows = args.k;
              CopyColumns(rows, p, dx.cols - p * kGroup, wide);
            }
            MultiplyRows(args, 0, dy.rows, p, dx);
          }
        }
      });
}

void CpuTrainOps::Product(ProductForm form, float alpha, ConstTensor a,
                          ConstTensor b, bool accumulate, Tensor c, Stream&) {
  const bool b_transposed = form == ProductForm::kNT;
  TileProductArgs args = RowsOf(a);
  if (form == ProductForm::kTN) {
    args.x_row = 1;
    args.x_k = a.stride;
    args.k = a.rows;
  }
  args.alpha = alpha;
  args.accumulate = accumulate;
  CHECK_EQ(c.rows, form == ProductForm::kTN ? a.cols : a.rows);
  CHECK_EQ(c.cols, b_transposed ? b.rows : b.cols);
  CHECK_EQ(args.k, b_transposed ? b.cols : b.rows);
  if (c.rows == 0) return;
  const int64_t blocks = (c.rows + kTaskRows - 1) / kTaskRows;
  // A task is some rows of one panel; neighbours share the panel.
  const int64_t tasks = GroupsOf(c.cols) * blocks;
  const int64_t grain =
      std::clamp<int64_t>(tasks / (2 * pool_.num_threads()), 1, blocks);
  const auto run = [&](int64_t begin, int64_t end, int worker) {
    float* copy = scratch(worker, args.k * kGroup);
    int64_t copied = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t p = task / blocks;
      const int64_t row = task % blocks * kTaskRows;
      const int64_t cols = std::min(kGroup, c.cols - p * kGroup);
      TileProductArgs task_args = args;
      task_args.w = copy;
      if (!b_transposed && (cols == kGroup || cols == kGroup / 2)) {
        task_args.w = b.f32(0) + p * kGroup;
        task_args.w_k = b.stride;
      } else if (copied != p && b_transposed) {
        train_.transpose(b.f32(p * kGroup), b.stride, cols, args.k, copy);
      } else if (copied != p) {
        CopyColumns(b, p, cols, copy);
      }
      copied = p;
      MultiplyRows(task_args, row, std::min(row + kTaskRows, c.rows), p, c);
    }
  };
  pool_.ParallelFor(tasks, grain, run);
}

void CpuTrainOps::MergedRowSquares(const TrainMatrix& w, ConstTensor a,
                                   ConstTensor b, float scale,
                                   std::span<double> out, Stream&) {
  CHECK_EQ(static_cast<int64_t>(out.size()), w.out_dim());
  const int64_t k = w.in_dim();
  pool_.ParallelFor(
      GroupsOf(w.out_dim()), 1, [&](int64_t begin, int64_t end, int worker) {
        // A panel of the merged matrix and one of b, columns one after the
        // other.
        float* merged = scratch(worker, (k + b.cols) * kGroup);
        float* factors = merged + k * kGroup;
        for (int64_t p = begin; p < end; ++p) {
          const int64_t rows = std::min(kGroup, w.out_dim() - p * kGroup);
          WidenPanel(w, p, merged);
          train_.transpose(b.f32(p * kGroup), b.stride, rows, b.cols, factors);
          TileProductArgs args;
          args.x = a.f32(0);
          args.x_row = 1;
          args.x_k = a.stride;
          args.rows = k;
          args.k = a.rows;
          args.w = factors;
          args.alpha = scale;
          args.accumulate = true;
          args.y = merged;
          args.y_row = kGroup;
          train_.tile_product(args);
          double squares[kGroup] = {};
          for (int64_t i = 0; i < k; ++i) {
            for (int64_t j = 0; j < kGroup; ++j) {
              const double value = static_cast<double>(merged[i * kGroup + j]);
              squares[j] += value * value;
            }
          }
          std::copy_n(squares, rows, out.data() + p * kGroup);
        }
      });
}

}  // namespace lorikeet::cpu
