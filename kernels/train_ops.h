// TrainOps is the contract of the operators that only training needs: products
// with both operands in f32, and the backward twins of the operators in ops.h.
// One paragraph per operator, implemented by each backend.
//
// Activations, gradients and trained weights are f32 in the backend's memory;
// tokens, targets, sequences and results (in double, or a TokenLoss) lie on
// the host, the latter after Stream::Sync. What is frozen is read in its packed
// form, also transposed, so there is no second copy of the base.
// Rows are the tokens of a batch: sequences one after the other, each from
// position 0. A gradient `dx` is that of the loss by x. Operators enqueue on a
// stream and return void; a wrong shape is a programmer's error (CHECK). Inputs
// and outputs must not alias unless the paragraph says so; zero rows add
// nothing.
//
// Results do not depend on the number of threads: a sum over tokens is one
// chain in ascending order or in tiles of a fixed size, never one piece a
// thread.
//
// Thread-compatible: one thread calls the operators.

#ifndef LORIKEET_KERNELS_TRAIN_OPS_H_
#define LORIKEET_KERNELS_TRAIN_OPS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "base/check.h"
#include "base/token.h"
#include "kernels/packed_weight.h"
#include "kernels/paged_kv.h"
#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace lorikeet {

// W [out_dim, in_dim]: frozen in the form that Ops packed, or plain f32 that is
// trained.
struct TrainMatrix {
  const PackedWeight* packed = nullptr;
  ConstTensor plain;  // where `packed` is null

  int64_t out_dim() const {
    return packed != nullptr ? packed->out_dim() : plain.rows;
  }
  int64_t in_dim() const {
    return packed != nullptr ? packed->in_dim() : plain.cols;
  }
};

// c = op(a) op(b): kNT multiplies by the transpose of b, kTN that of a by b.
enum class ProductForm : uint8_t { kNN, kNT, kTN };

// Heads of q [tokens, heads * head_dim] and k, v [tokens, kv_heads * head_dim];
// head h reads kv head h / (heads / kv_heads).
struct AttentionHeads {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1;
  int64_t window = 0;  // > 0: position i sees j > i - window only
};

// Which random numbers a Dropout takes: (seed, stream) chooses the sequence.
struct DropoutKey {
  uint64_t seed = 0;
  uint64_t stream = 0;
  float rate = 0;  // share that becomes 0, in [0, 1)
};

// What cross entropy says of one row.
struct TokenLoss {
  double loss = 0;          // -log softmax(logits)[target], natural
  bool is_largest = false;  // the target is what greedy decoding takes
};

struct AdamWStep {
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0;
  float gradient_scale = 1;  // of clipping
  int64_t step = 1;          // from 1
};

class TrainOps {
 public:
  virtual ~TrainOps() = default;

  // y [rows, out] = x [rows, in] W^T + bias. bias may be null. int8 weights are
  // multiplied as the numbers they mean; x stays f32.
  virtual void Linear(ConstTensor x, const TrainMatrix& w, const float* bias,
                      Tensor y, Stream& stream) = 0;

  // dx [rows, in] = dy [rows, out] W, or += with `accumulate`.
  virtual void LinearBackward(ConstTensor dy, const TrainMatrix& w,
                              bool accumulate, Tensor dx, Stream& stream) = 0;

  // c = alpha * op(a) op(b), or += with `accumulate`. c is [m, n]; kNN: a
  // [m, k], b [k, n]; kNT: a [m, k], b [n, k]; kTN: a [k, m], b [k, n].
  // Low-rank parts, their gradients, and those of trained weights.
  virtual void Product(ProductForm form, float alpha, ConstTensor a,
                       ConstTensor b, bool accumulate, Tensor c,
                       Stream& stream) = 0;

  // Squares of row norms: out[j] = sum_k (W + scale * b a)[j, k]^2, in double;
  // a [rank, in], b [out, rank]. DoRA's.
  virtual void MergedRowSquares(const TrainMatrix& w, ConstTensor a,
                                ConstTensor b, float scale,
                                std::span<double> out, Stream& stream) = 0;

  // Causal attention inside of each sequence, as Ops::PagedAttention:
  //   y[i] = softmax(scale * q[i] K^T) V
  // lse [tokens, heads] = log of the sum of exp of the scaled scores, which the
  // backward pass reads.
  virtual void Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                         std::span<const SequenceRows> sequences,
                         const AttentionHeads& heads, Tensor y, Tensor lse,
                         Stream& stream) = 0;

  // dq, dk, dv from dy and what Attention read and wrote.
  virtual void AttentionBackward(ConstTensor q, ConstTensor k, ConstTensor v,
                                 ConstTensor y, ConstTensor lse, ConstTensor dy,
                                 std::span<const SequenceRows> sequences,
                                 const AttentionHeads& heads, Tensor dq,
                                 Tensor dk, Tensor dv, Stream& stream) = 0;

  // x = 0.
  virtual void Clear(Tensor x, Stream& stream) = 0;

  // y = x.
  virtual void Copy(ConstTensor x, Tensor y, Stream& stream) = 0;

  // dx of y = RmsNorm(x) * weight, = or += with `accumulate`. dweight [cols] +=
  // if not null. dx may be dy.
  virtual void RmsNormBackward(ConstTensor x, const float* weight, float eps,
                               ConstTensor dy, bool accumulate, Tensor dx,
                               float* dweight, Stream& stream) = 0;

  // Gradients of y = silu(gate) * up. dgate or dup may be dy.
  virtual void SiluMulBackward(ConstTensor gate, ConstTensor up, ConstTensor dy,
                               Tensor dgate, Tensor dup, Stream& stream) = 0;

  // dtable[tokens[i], :] += dy[i, :], i ascending.
  virtual void EmbedBackward(std::span<const Token> tokens, ConstTensor dy,
                             Tensor dtable, Stream& stream) = 0;

  // out[j] += sum_t a[t, j] * b[t, j]; without data in b: sum_t a[t, j].
  // Gradients of biases and of DoRA's magnitudes.
  virtual void AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                             Stream& stream) = 0;

  // y = x with some elements zero and the others divided by 1 - rate, or +=
  // with `accumulate`; the same elements for the same key and shape, so that it
  // is its own backward operator. Element e = i * cols + j is zero where word
  // e % 4 of Philox at (e / 4, stream) under seed, >> 8, is below rate * 2^24.
  // y may be x without `accumulate`.
  virtual void Dropout(ConstTensor x, const DropoutKey& key, bool accumulate,
                       Tensor y, Stream& stream) = 0;

  // out[i] = loss of targets[i] under logits[i, :]. With `gradient_scale` != 0
  // logits become gradient_scale * (softmax(logits) - one-hot(target)), else
  // they are left.
  virtual void CrossEntropy(Tensor logits, std::span<const Token> targets,
                            float gradient_scale, std::span<TokenLoss> out,
                            Stream& stream) = 0;

  // out = sum of x[i]^2 in double: tiles of 4096, added in ascending order.
  virtual void SumOfSquares(std::span<const float> x, double* out,
                            Stream& stream) = 0;

  // Loshchilov and Hutter 2019, g = gradient_scale * gradient:
  //   p *= 1 - lr * weight_decay
  //   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
  //   p -= (lr / (1 - beta1^t)) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
  virtual void AdamW(const AdamWStep& step, std::span<const float> gradient,
                     std::span<float> parameter, std::span<float> m,
                     std::span<float> v, Stream& stream) = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_TRAIN_OPS_H_
