// LoRA shrink of one-hot rows: v[t, r] = A[r, tokens[t]].
//
// Block = tile of 16 rank rows and up to 16 rows of x, thread = one element.
// Reads 2 bytes of a row of A each, in a sector of 32: the column of a token is
// spread over all rows. A prompt reads few; limit: latency.

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kTile = 16;
constexpr int kThreads = kTile * kTile;

__global__ void __launch_bounds__(kThreads)
    LoraLookupKernel(const int32_t* tokens, const LoraTermArgs* terms,
                     const ShrinkTile* tiles, float* v) {
  const ShrinkTile tile = tiles[blockIdx.x];
  const LoraTermArgs::Part& part = terms[tile.term].parts[0];
  const int r = tile.rank_begin + threadIdx.x % kTile;
  const int row = threadIdx.x / kTile;
  if (r >= part.rank || row >= tile.row_count) return;
  const int64_t x_row = int64_t{tile.row_begin} + row;
  const int64_t token = LoadReadOnly(tokens + x_row);
  const int64_t segment_row = x_row - terms[tile.term].row_begin;
  StoreF32(v + part.v_begin + segment_row * part.rank + r,
           LoadF32(part.a + int64_t{r} * part.a_stride + token));
}

}  // namespace

cudaError_t LoraLookup(const int32_t* tokens, const LoraTermArgs* terms,
                       const ShrinkTile* tiles, int64_t tile_count, float* v,
                       cudaStream_t stream) {
  if (tile_count == 0) return cudaSuccess;
  return Launch(
      LoraLookupKernel,
      {dim3(static_cast<unsigned>(tile_count)), dim3(kThreads), 0, stream},
      tokens, terms, tiles, v);
}

}  // namespace lorikeet::cuda
