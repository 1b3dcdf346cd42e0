// Rows of k and v go to their places in the cache; whole blocks are copied.
//
// Append: thread = one element of k and of v; neighbours write neighbours of a
// head's row. Moves 12 (bf16) or 16 bytes per element. Copy: thread = 16 bytes
// of K and of V. Limit: DRAM.

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/row_grid.h"

namespace lorikeet::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    KvAppendKernel(Rows<const float> k, Rows<const float> v, KvCache kv,
                   const int64_t* place) {
  const int64_t col = RowGridColumn(1);
  if (col >= k.cols) return;
  const int64_t head = col / kv.head_dim, d = col % kv.head_dim;
  for (int64_t row = blockIdx.y; row < k.rows; row += gridDim.y) {
    const int64_t at = LoadReadOnly(place + row);
    if (at < 0) continue;
    const int64_t block = at / kv.block_size, offset = at % kv.block_size;
    const int64_t to = block * kv.block_stride +
                       (head * kv.block_size + offset) * kv.head_dim + d;
    StoreF32(static_cast<T*>(kv.k) + to,
             LoadReadOnly(k.data + row * k.stride + col));
    StoreF32(static_cast<T*>(kv.v) + to,
             LoadReadOnly(v.data + row * v.stride + col));
  }
}

__global__ void __launch_bounds__(kRowThreads)
    KvCopyKernel(uint4* k, uint4* v, int64_t words, const int2* from_to,
                 int64_t count) {
  const int64_t word = RowGridColumn(1);
  if (word >= words) return;
  for (int64_t i = blockIdx.y; i < count; i += gridDim.y) {
    const int2 pair = LoadReadOnly(from_to + i);
    const int64_t from = pair.x * words + word, to = pair.y * words + word;
    StoreGlobal16(k + to, Load(k + from));
    StoreGlobal16(v + to, Load(v + from));
  }
}

}  // namespace

cudaError_t KvAppend(Rows<const float> k, Rows<const float> v,
                     const KvCache& kv, const int64_t* place,
                     cudaStream_t stream) {
  if (k.rows == 0) return cudaSuccess;
  const LaunchConfig config = RowGrid(k.rows, k.cols, 1, stream);
  return kv.is_bf16 ? Launch(KvAppendKernel<Bf16>, config, k, v, kv, place)
                    : Launch(KvAppendKernel<float>, config, k, v, kv, place);
}

cudaError_t KvCopy(const KvCache& kv, const int2* from_to, int64_t count,
                   cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int64_t element = kv.is_bf16 ? 2 : 4;
  const int64_t words = kv.block_stride * element / kVectorBytes;
  return Launch(KvCopyKernel, RowGrid(count, words, 1, stream),
                static_cast<uint4*>(kv.k), static_cast<uint4*>(kv.v), words,
                from_to, count);
}

}  // namespace lorikeet::cuda
