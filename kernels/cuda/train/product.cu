// c = alpha * op(a) op(b) + bias in f32: the low-rank parts, their gradients
// and those of trained weights.
//
// Block = (tile of c, piece of k). A tile's operands come through registers
// into shared memory 16 columns of k at a time, the next ones while these are
// multiplied; a thread has kM x kN elements of c, as far apart as there are
// threads along that side, so that a warp reads neighbouring words. Low ranks
// make c narrow or flat: three shapes of tiles. Such products have few tiles,
// so k is cut into pieces, whose sums are added in ascending order afterwards;
// an element is one chain over ascending k per piece, and pieces depend on the
// shape alone. Limit: DRAM for low ranks, else the f32 units (no tensor cores:
// gradients keep f32's digits).

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStepK = 16;

// A tile of kTileM x kTileN elements; kM x kN of them for each thread.
template <int kTileM_, int kTileN_, int kM_, int kN_>
struct Shape {
  static constexpr int kTileM = kTileM_, kTileN = kTileN_;
  static constexpr int kM = kM_, kN = kN_;
  static constexpr int kAlongM = kTileM / kM, kAlongN = kTileN / kN;
  static_assert(kAlongM * kAlongN == kThreads);
};
using Square = Shape<64, 64, 4, 4>;
using Narrow = Shape<128, 16, 4, 2>;
using Flat = Shape<16, 128, 2, 4>;

// kTile rows (of op(a), or columns of op(b)) by kStepK columns of k, on their
// way from global to shared memory, where element (k, i) is at k * kPitch + i.
// kIsAcross: in memory k runs along columns, else along rows.
template <int kTile, bool kIsAcross>
struct Strip {
  // A warp's words of Store lie in different banks.
  static constexpr int kPitch = kIsAcross ? kTile + 2 : kTile;
  static constexpr int kElements = kTile * kStepK / kThreads;
  float f[kElements];

  static DEVICE void Place(int e, int* i, int* k) {
    const int at = static_cast<int>(threadIdx.x) + e * kThreads;
    *i = kIsAcross ? at / kStepK : at % kTile;
    *k = kIsAcross ? at % kStepK : at / kTile;
  }
  DEVICE void Load(const Rows<const float>& m, int64_t i_begin, int64_t i_end,
                   int64_t k_begin, int64_t k_end) {
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      int i, k;
      Place(e, &i, &k);
      const int64_t row = kIsAcross ? i_begin + i : k_begin + k;
      const int64_t col = kIsAcross ? k_begin + k : i_begin + i;
      const bool has = i_begin + i < i_end && k_begin + k < k_end;
      f[e] = has ? LoadReadOnly(m.data + row * m.stride + col) : 0.0f;
    }
  }
  DEVICE void Store(float* shared) const {
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      int i, k;
      Place(e, &i, &k);
      shared[k * kPitch + i] = f[e];
    }
  }
};

DEVICE void Finish(const ProductArgs& args, int64_t row, int64_t col,
                   float sum) {
  float* const to = args.c.data + row * args.c.stride + col;
  float value = args.alpha * sum;
  if (args.bias != nullptr) value += LoadReadOnly(args.bias + col);
  Store(to, args.accumulate != 0 ? Load(to) + value : value);
}

template <typename S, bool kATransposed, bool kBTransposed>
__global__ void __launch_bounds__(kThreads) ProductKernel(ProductArgs args) {
  using StripA = Strip<S::kTileM, !kATransposed>;
  using StripB = Strip<S::kTileN, kBTransposed>;
  SHARED_ARRAY(float, a_s, kStepK* StripA::kPitch);
  SHARED_ARRAY(float, b_s, kStepK* StripB::kPitch);
  const int tn = threadIdx.x % S::kAlongN, tm = threadIdx.x / S::kAlongN;
  const int64_t row_begin = int64_t{blockIdx.x} * S::kTileM;
  const int64_t col_begin = int64_t{blockIdx.y} * S::kTileN;
  const int64_t k_begin = int64_t{blockIdx.z} * args.piece;
  const int64_t k_end =
      k_begin + args.piece < args.k ? k_begin + args.piece : args.k;
  StripA a;
  StripB b;
  const auto load = [&](int64_t k) {
    a.Load(args.a, row_begin, args.c.rows, k, k_end);
    b.Load(args.b, col_begin, args.c.cols, k, k_end);
  };
  float sums[S::kM][S::kN] = {};
  load(k_begin);
  for (int64_t k = k_begin; k < k_end; k += kStepK) {
    a.Store(a_s);
    b.Store(b_s);
    __syncthreads();
    if (k + kStepK < k_end) load(k + kStepK);
#pragma unroll
    for (int p = 0; p < kStepK; ++p) {
      float x[S::kM], y[S::kN];
#pragma unroll
      for (int i = 0; i < S::kM; ++i) {
        x[i] = a_s[p * StripA::kPitch + tm + i * S::kAlongM];
      }
#pragma unroll
      for (int j = 0; j < S::kN; ++j) {
        y[j] = b_s[p * StripB::kPitch + tn + j * S::kAlongN];
      }
#pragma unroll
      for (int i = 0; i < S::kM; ++i) {
#pragma unroll
        for (int j = 0; j < S::kN; ++j) {
          sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < S::kM; ++i) {
#pragma unroll
    for (int j = 0; j < S::kN; ++j) {
      const int64_t row = row_begin + tm + i * S::kAlongM;
      const int64_t col = col_begin + tn + j * S::kAlongN;
      if (row >= args.c.rows || col >= args.c.cols) continue;
      if (args.partials == nullptr) {
        Finish(args, row, col, sums[i][j]);
      } else {
        Store(args.partials + (blockIdx.z * args.c.rows + row) * args.c.cols +
                  col,
              sums[i][j]);
      }
    }
  }
}

__global__ void __launch_bounds__(kRowThreads)
    AddPiecesKernel(ProductArgs args, int32_t pieces) {
  const int64_t col = RowGridColumn(1);
  if (col >= args.c.cols) return;
  const int64_t size = args.c.rows * args.c.cols;
  for (int64_t row = blockIdx.y; row < args.c.rows; row += gridDim.y) {
    const float* const from = args.partials + row * args.c.cols + col;
    float sum = 0.0f;
    for (int32_t p = 0; p < pieces; ++p) sum += LoadReadOnly(from + p * size);
    Finish(args, row, col, sum);
  }
}

template <typename S>
int64_t TilesOf(int64_t m, int64_t n) {
  return ((m + S::kTileM - 1) / S::kTileM) * ((n + S::kTileN - 1) / S::kTileN);
}

template <typename S>
cudaError_t LaunchShape(ProductOperands operands, const ProductArgs& args,
                        int64_t pieces, cudaStream_t stream) {
  const auto tiles = [](int64_t size, int tile) {
    return static_cast<unsigned>((size + tile - 1) / tile);
  };
  const LaunchConfig config{
      dim3(tiles(args.c.rows, S::kTileM), tiles(args.c.cols, S::kTileN),
           static_cast<unsigned>(pieces)),
      dim3(kThreads), 0, stream};
  switch (operands) {
    case ProductOperands::kNN:
      return Launch(ProductKernel<S, false, false>, config, args);
    case ProductOperands::kNT:
      return Launch(ProductKernel<S, false, true>, config, args);
    default:
      return Launch(ProductKernel<S, true, false>, config, args);
  }
}

// Calls fn(Shape) for the tiles that suit c.
template <typename Fn>
auto WithShape(int64_t m, int64_t n, const Fn& fn) {
  constexpr int64_t kFew = 32;
  if (n <= kFew && n <= m) return fn(Narrow());
  return m <= kFew ? fn(Flat()) : fn(Square());
}

}  // namespace

int64_t ProductPieces(int64_t m, int64_t n, int64_t k) {
  // Two blocks for each multiprocessor of the largest GPU there is; a piece
  // that is too short costs more in partial sums than it gains.
  constexpr int64_t kBlocks = 288, kLeastPiece = 64;
  const int64_t tiles =
      WithShape(m, n, [&](auto s) { return TilesOf<decltype(s)>(m, n); });
  return std::clamp<int64_t>(kBlocks / std::max<int64_t>(1, tiles), 1,
                             std::max<int64_t>(1, k / kLeastPiece));
}

cudaError_t Product(ProductOperands operands, const ProductArgs& args,
                    int64_t pieces, cudaStream_t stream) {
  if (args.c.rows == 0 || args.c.cols == 0) return cudaSuccess;
  const cudaError_t error =
      WithShape(args.c.rows, args.c.cols, [&](auto shape) {
        return LaunchShape<decltype(shape)>(operands, args, pieces, stream);
      });
  if (error != cudaSuccess || args.partials == nullptr) return error;
  return Launch(AddPiecesKernel, RowGrid(args.c.rows, args.c.cols, 1, stream),
                args, static_cast<int32_t>(pieces));
}

}  // namespace lorikeet::cuda
