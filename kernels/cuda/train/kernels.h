// The launchers of training's kernels, as those of kernels/cuda/kernels.h.
//
// All is f32 but the frozen weights. Sums over tokens are in an order that the
// shapes alone decide: no atomics, and nothing depends on the device.

#ifndef LORIKEET_KERNELS_CUDA_TRAIN_KERNELS_H_
#define LORIKEET_KERNELS_CUDA_TRAIN_KERNELS_H_

#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

// ---- product.cu ----
enum class ProductOperands : int32_t { kNN, kNT, kTN };  // as ProductForm
struct ProductArgs {
  Rows<const float> a, b;
  Rows<float> c;
  const float* bias = nullptr;  // [c.cols] or null
  int64_t k = 0;
  float alpha = 1;
  int32_t accumulate = 0;
  // The sums of each piece of k, [pieces, c.rows, c.cols]; null: one piece.
  float* partials = nullptr;
  int64_t piece = 0;  // of k
};
template <>
inline constexpr bool kIsBytes<ProductArgs> = true;
static_assert(sizeof(ProductArgs) ==
              3 * sizeof(Rows<float>) + 5 * sizeof(int64_t));
// How many pieces k is cut into so that the product fills a GPU.
int64_t ProductPieces(int64_t m, int64_t n, int64_t k);
// c = alpha * op(a) op(b) + bias, or += with `accumulate`. args.piece and
// partials are those of ProductPieces.
cudaError_t Product(ProductOperands operands, const ProductArgs& args,
                    int64_t pieces, cudaStream_t stream);

// ---- attention.cu, attention_backward.cu ----
// Rows of one sequence, from `row` on, at most as many as a tile has.
struct SequenceTile {
  int32_t begin, end;  // of the sequence
  int32_t row;
  int32_t unused;
};
int32_t TrainAttentionTileRows(int64_t head_dim);
inline constexpr int64_t kMaxTrainHeadDim = 256;
struct TrainAttentionArgs {
  Rows<const float> q, k, v, dy;  // dy and what follows: backward
  Rows<float> y;                  // read by the way back
  Rows<float> lse;                // the same; [rows, heads]
  Rows<float> along;              // [rows, heads], dy * y of each head
  Rows<float> dq, dk, dv;
  const SequenceTile* tiles = nullptr;
  int32_t tile_count = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;
  int32_t window = 0;  // 0 = none
};
template <>
inline constexpr bool kIsBytes<TrainAttentionArgs> = true;
static_assert(sizeof(TrainAttentionArgs) ==
              10 * sizeof(Rows<float>) + sizeof(void*) + 6 * sizeof(int32_t));
cudaError_t TrainAttention(const TrainAttentionArgs& args, cudaStream_t stream);
// Writes `along`, then dq, then dk and dv, of all rows of the sequences.
cudaError_t TrainAttentionBackward(const TrainAttentionArgs& args,
                                   cudaStream_t stream);

// ---- norm.cu ----
// inverse[i] = 1 / sqrt(mean(x[i, :]^2) + eps).
cudaError_t InverseRms(Rows<const float> x, float eps, float* inverse,
                       cudaStream_t stream);
// dx may be dy.
cudaError_t RmsNormBackward(Rows<const float> x, const float* weight, float eps,
                            Rows<const float> dy, bool accumulate,
                            Rows<float> dx, cudaStream_t stream);

// ---- columns.cu ----
// out[j] += sum_t a[t, j] * b[t, j] * factor[t]; b without data and a null
// factor count as 1.
cudaError_t AddColumnDots(Rows<const float> a, Rows<const float> b,
                          const float* factor, float* out, cudaStream_t stream);
// table[tokens[i], :] += dy[rows[r], :] for r = begins[i] .. begins[i + 1], in
// this order. No token occurs twice.
cudaError_t EmbedBackward(const int32_t* tokens, const int32_t* begins,
                          int64_t token_count, const int32_t* rows,
                          Rows<const float> dy, Rows<float> table,
                          cudaStream_t stream);

// ---- elementwise.cu ----
// x = 0.
cudaError_t Clear(Rows<float> x, cudaStream_t stream);
// dgate or dup may be dy.
cudaError_t SiluMulBackward(Rows<const float> gate, Rows<const float> up,
                            Rows<const float> dy, Rows<float> dgate,
                            Rows<float> dup, cudaStream_t stream);
struct DropoutArgs {
  uint64_t seed = 0, stream = 0;  // of DropoutKey
  int64_t limit = 0;              // a word >> 8 below it drops
  float keep = 1;                 // 1 / (1 - rate)
  int32_t accumulate = 0;
};
template <>
inline constexpr bool kIsBytes<DropoutArgs> = true;
static_assert(sizeof(DropoutArgs) == 4 * sizeof(uint64_t));
// As TrainOps::Dropout; y may be x without `accumulate`.
cudaError_t Dropout(Rows<const float> x, const DropoutArgs& args, Rows<float> y,
                    cudaStream_t stream);

// ---- loss.cu ----
struct RowLoss {
  double loss;
  int64_t largest;  // the token of the largest logit, of equals the lowest
};
// gradient_scale = 0: logits are left.
cudaError_t CrossEntropy(Rows<float> logits, const int32_t* targets,
                         float gradient_scale, RowLoss* out,
                         cudaStream_t stream);

// ---- optimizer.cu ----
struct AdamWArgs {
  float decay;  // 1 - lr * weight_decay
  float beta1, beta2;
  float rate;          // lr / (1 - beta1^t)
  float inverse_root;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float gradient_scale;
};
template <>
inline constexpr bool kIsBytes<AdamWArgs> = true;
static_assert(sizeof(AdamWArgs) == 7 * sizeof(float));
cudaError_t AdamW(const AdamWArgs& args, const float* gradient,
                  float* parameter, float* m, float* v, int64_t count,
                  cudaStream_t stream);
inline constexpr int64_t kSquaresTile = 4096;
// out[i] = sum of squares of tile i of x.
cudaError_t TileSquares(const float* x, int64_t count, double* out,
                        cudaStream_t stream);

// ---- merged_rows.cu ----
// out[j] = sum_k (W + scale * b a)[j, k]^2; a [rank, in], b [out, rank].
cudaError_t MergedRowSquares(Rows<const Bf16> w, Rows<const float> a,
                             Rows<const float> b, float scale, double* out,
                             cudaStream_t stream);
cudaError_t MergedRowSquares(Rows<const float> w, Rows<const float> a,
                             Rows<const float> b, float scale, double* out,
                             cudaStream_t stream);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_TRAIN_KERNELS_H_
