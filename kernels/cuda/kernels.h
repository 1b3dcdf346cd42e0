// The kernels' launchers: one family a file, plain device pointers, no tensors.
//
// A launcher enqueues on the stream and returns what the launch gave; faults of
// a kernel surface when the stream is waited for. Zero rows is a no-op. A
// matrix is row-major, `stride` elements from row to row.

#ifndef LORIKEET_KERNELS_CUDA_KERNELS_H_
#define LORIKEET_KERNELS_CUDA_KERNELS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch_recorder.h"

namespace lorikeet::cuda {

using Bf16 = __nv_bfloat16;

// A matrix in device memory.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  operator Rows<const T>() const requires(!std::is_const_v<T>) {
    return {data, rows, cols, stride};
  }
};

// Bytes that a 16-byte access reads at once, and bf16 elements in it.
inline constexpr int64_t kVectorBytes = 16;
inline constexpr int64_t kVectorBf16 = 8;
constexpr int64_t RoundUp(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// ---- embed.cu ----
// A row whose token is negative stays as it is.
cudaError_t Embed(Rows<const Bf16> table, const int32_t* tokens, Rows<float> y,
                  cudaStream_t stream);
// rows = null: all in their order.
cudaError_t GatherRows(Rows<const float> x, const int32_t* rows, Rows<float> y,
                       cudaStream_t stream);

// ---- convert.cu ----
// y = x rounded to bf16. y's rows are `y.stride` wide, a multiple of 8; what is
// beyond x's columns becomes 0.
cudaError_t ToBf16(Rows<const float> x, Rows<Bf16> y, cudaStream_t stream);

// ---- gemm.cu ----
// y [rows, out] = x W^T + bias [out] (or null), the same bits per row whatever
// the number of rows. Pointers and strides of x and w are aligned to 16 bytes;
// what is beyond x.cols up to a multiple of 8 is 0 in both.
cudaError_t Gemm(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
                 Rows<float> y, cudaStream_t stream);

// ---- elementwise.cu ----
cudaError_t SiluMul(Rows<const float> gate, Rows<const float> up, Rows<float> y,
                    cudaStream_t stream);
cudaError_t ResidualAdd(Rows<const float> x, Rows<float> y,
                        cudaStream_t stream);
// y[i, j] = gain[j] * y[i, j] + bias[j]; bias may be null.
cudaError_t ScaleColumns(const float* gain, const float* bias, Rows<float> y,
                         cudaStream_t stream);
// y[:, cols[j]] = x[:, j]; no column occurs twice.
cudaError_t ScatterColumns(Rows<const float> x, const int32_t* cols,
                           Rows<float> y, cudaStream_t stream);

// ---- rms_norm.cu ----
// y may be x.
cudaError_t RmsNorm(Rows<const float> x, const float* weight, float eps,
                    Rows<float> y, cudaStream_t stream);

// ---- rope.cu ----
cudaError_t Rope(Rows<float> x, int64_t head_dim, const float* cos,
                 const float* sin, cudaStream_t stream);

// ---- kv_cache.cu ----
// One layer of
// the cache, as PagedKvView.
struct KvCache {
  void* k = nullptr;
  void* v = nullptr;
  bool is_bf16 = false;
  uint8_t unused[3] = {};  // what kernels take has no holes (kIsBytes)
  int32_t block_size = 0;
  int64_t block_stride = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};
// place[i] = block * block_size + position in the block of row i; -1: nobody's.
cudaError_t KvAppend(Rows<const float> k, Rows<const float> v,
                     const KvCache& kv, const int64_t* place,
                     cudaStream_t stream);
// No `from` is a `to`, and no `to` occurs twice.
cudaError_t KvCopy(const KvCache& kv, const int2* from_to, int64_t count,
                   cudaStream_t stream);

// ---- attention.cu ----
// A tile of query
// rows of one sequence, together with a stretch of its keys.
struct AttentionTile {
  int32_t row_begin;    // first row of q
  int32_t row_count;    // 1 .. rows per tile
  int32_t position;     // of the first row
  int32_t table_begin;  // of the sequence's block table
  int32_t key_begin;    // first key of the split, a multiple of kSplitKeys
  int32_t split;        // of the rows' splits, from 0
  int32_t split_count;
  int32_t partial_row;  // of the first row's first split
};
inline constexpr int64_t kSplitKeys = 256;
struct AttentionArgs {
  Rows<const float> q;  // [rows, heads * head_dim]
  Rows<float> y;
  KvCache kv;
  const int32_t* block_tables = nullptr;
  const AttentionTile* tiles = nullptr;
  int32_t tile_count = 0;
  int32_t rows_per_tile = 0;
  int32_t heads = 0;
  float scale = 0;
  int32_t window = 0;  // 0 = none
  int32_t unused = 0;
  // Per (partial row, head): head_dim values, then the sum and the maximum, and
  // padding to 32 bytes.
  float* partials = nullptr;
};
template <>
inline constexpr bool kIsBytes<AttentionArgs> = true;
static_assert(sizeof(AttentionArgs) == 2 * sizeof(Rows<float>) +
                                           sizeof(KvCache) + 3 * sizeof(void*) +
                                           6 * sizeof(int32_t));
// Floats of partials per partial row (one row of one split).
int64_t AttentionPartialFloats(int64_t heads, int64_t head_dim);
// Query rows in a tile: as many as fill 16 rows of mma with a kv head's group.
int32_t AttentionRowsPerTile(const KvCache& kv, int64_t heads);
// Fills partials. Then MergeAttention adds the splits of each row in ascending
// order; `rows` are {row of y, first partial row, split count}.
cudaError_t Attention(const AttentionArgs& args, cudaStream_t stream);
cudaError_t MergeAttention(const AttentionArgs& args, const int4* rows,
                           int64_t row_count, cudaStream_t stream);

// ---- lora_shrink.cu, lora_lookup.cu, lora_expand.cu ----
inline constexpr int kMaxLoraParts = 3;  // linears of a group: q, k, v
// One adapter's part in a segment, for all linears of a group.
struct LoraTermArgs {
  struct Part {
    const Bf16* a = nullptr;  // [rank, a_stride]
    const Bf16* b = nullptr;  // [out, b_stride]
    int32_t rank = 0;         // 0 = the linear is not adapted
    int32_t a_stride = 0;
    int32_t b_stride = 0;
    float scale = 0;
    int64_t v_begin = 0;  // [rows of the segment, rank]
  };
  Part parts[kMaxLoraParts];
  int32_t rank_sum = 0;
  int32_t row_begin = 0;  // of the segment
};
// 16 rank rows of a term (counted over its parts) and up to 16 rows of x.
struct ShrinkTile {
  int32_t term;
  int32_t rank_begin;  // multiple of 16
  int32_t row_begin;
  int32_t row_count;
};
// The terms of up to 16 rows of y.
struct ExpandTile {
  int32_t first_term;
  int32_t term_count;
  int32_t row_begin;
  int32_t row_count;
};
inline constexpr int64_t kShrinkSplit = 512;  // columns of K in a piece
// partials [pieces of K, v_size]: v of each piece.
cudaError_t LoraShrink(Rows<const Bf16> x, const LoraTermArgs* terms,
                       const ShrinkTile* tiles, int64_t tile_count,
                       float* partials, int64_t v_size, cudaStream_t stream);
// v = the sum of the pieces, in ascending order.
cudaError_t LoraReduce(const float* partials, int64_t pieces, int64_t v_size,
                       float* v, cudaStream_t stream);
// v[t, 0:rank) = A[:, tokens[t]], of the terms' first part.
cudaError_t LoraLookup(const int32_t* tokens, const LoraTermArgs* terms,
                       const ShrinkTile* tiles, int64_t tile_count, float* v,
                       cudaStream_t stream);
struct ExpandArgs {
  const LoraTermArgs* terms = nullptr;
  const ExpandTile* tiles = nullptr;
  int64_t tile_count = 0;
  const float* partials = nullptr;  // as LoraShrink left them
  int32_t pieces = 0;
  int32_t part_count = 0;
  int64_t v_size = 0;
  Rows<float> y[kMaxLoraParts];
};
cudaError_t LoraExpand(const ExpandArgs& args, cudaStream_t stream);

// ---- merge_rows.cu ----
struct MergeTermArgs {
  const Bf16* a = nullptr;  // [rank, a_stride]
  const Bf16* b = nullptr;  // [rows, b_stride], from the first row of W on
  int32_t rank = 0;
  int32_t a_stride = 0;
  int32_t b_stride = 0;
  float scale = 0;
};
// out = gain * (W + the terms), gain [rows] or null = 1. Rows of out are as far
// apart as those of W, a multiple of 8, and aligned to 16 bytes; what is beyond
// W's columns becomes 0. bf16 is rounded once.
cudaError_t MergeRows(Rows<const Bf16> w, const MergeTermArgs* terms,
                      int32_t term_count, const float* gain, Rows<float> out,
                      cudaStream_t stream);
cudaError_t MergeRows(Rows<const Bf16> w, const MergeTermArgs* terms,
                      int32_t term_count, const float* gain, Rows<Bf16> out,
                      cudaStream_t stream);

// ---- sample.cu, logprobs.cu ----
// As SamplingRow; lists are
// ranges of arrays of all rows.
struct SampleArgs {
  float temperature, top_p, min_p;
  float repetition_penalty, presence_penalty, frequency_penalty;
  int32_t top_k;
  uint64_t seed, candidate, output_position;
  int32_t bias_begin, bias_end;
  int32_t count_begin, count_end;
  int32_t banned_begin, banned_end;
  int32_t allowed_begin;  // in words of 64 tokens; -1 = all are allowed
};
struct SampleLists {
  const int32_t* bias_tokens = nullptr;
  const float* bias_values = nullptr;
  const int2* counts = nullptr;  // token, times in the output
  const int32_t* banned = nullptr;
  const uint64_t* allowed = nullptr;
};
// Overwrites the logits. tokens [rows].
cudaError_t Sample(Rows<float> logits, const SampleArgs* args,
                   const SampleLists& lists, int32_t* tokens,
                   cudaStream_t stream);

struct TopLogprob {
  int32_t token;
  float logprob;
};
// Per row: out[i * (count + 1)] = the target, then the `count` best.
cudaError_t Logprobs(Rows<const float> logits, const int32_t* targets,
                     int32_t count, TopLogprob* out, cudaStream_t stream);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_KERNELS_H_
