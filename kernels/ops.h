// Ops is the contract of all operators of the forward pass: one paragraph per
// operator, implemented by each backend (reference, cpu, later cuda).
//
// Activations x, y are f32. Tensors, norms, biases, cos, sin and the cache lie
// in the backend's memory (see Allocate): for host backends anywhere. Tokens,
// sequences, parameters, results and the vectors of a LoraSlot lie on the host;
// a result is there after Stream::Sync. Weights carry their own dtype.
// Operators enqueue on a stream and return void; a wrong shape is a
// programmer's error (CHECK). Zero rows is a no-op. x and y must not alias
// unless the paragraph says so.
//
// The order of arithmetic is part of the contract of the cpu backend:
//   Gemm       each output is one f32 FMA chain over ascending k, from 0, then
//              the bias is added; int8 weights: the chain runs over blocks of
//              32, whose inner sums are integers
//   LoraShrink k in pieces of 512, each one chain per lane, combined in order
//   LoraExpand one chain over ascending r, from 0; then y += s * chain
//   linear     Gemm, bias, LoraExpand of each term; where the row's adapter has
//              a gain: Gemm, LoraExpand, then y = gain * y + bias in one FMA
//   attention  keys in tiles of 32 aligned to absolute position 0, online
//              softmax per tile, splits of 256 positions merged in order
// so a row's result does not depend on the batch, on chunking or on threads.
//
// Thread-compatible: one thread (the engine's) calls the operators; Pack* may
// be called from any thread at any time.

#ifndef LORIKEET_KERNELS_OPS_H_
#define LORIKEET_KERNELS_OPS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/token.h"
#include "kernels/lora_batch.h"
#include "kernels/memory.h"
#include "kernels/packed_weight.h"
#include "kernels/paged_kv.h"
#include "kernels/sampling.h"
#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace lorikeet {

class TrainOps;

// One linear of a group: y[:, 0:out) = x W^T + b (+ LoRA).
struct LinearPart {
  LinearId id;                           // look-up key of what adapters change
  const PackedWeight* weight = nullptr;  // [out_dim, in_dim]
  const float* bias = nullptr;           // [out_dim] or null
  bool adaptable = true;                 // false: id is not used
};

// What follows the linears of a group, row by row.
struct RopeKvAppend {
  // Rotates q and k, appends k and v to the cache. Parts are q, k, v.
  const float* cos = nullptr;  // [rows, head_dim / 2], times attention factor
  const float* sin = nullptr;
  const float* q_norm = nullptr;  // [head_dim] RMSNorm per head first, or null
  const float* k_norm = nullptr;
  NormId q_norm_id;  // look-up keys of what adapters change
  NormId k_norm_id;
  float eps = 0;
  PagedKvView kv;
  std::span<const SequenceRows> sequences;
};

struct Epilogue {
  enum class Kind {
    // out[0] [rows, sum of out_dims] = the parts side by side.
    kStore,
    // Parts q, k, v. out [rows, q_dim] = rotated q; k, v go to the cache.
    kRopeKvAppend,
    // Parts gate, up. out [rows, intermediate] = silu(gate) * up.
    kSiluMul,
    // One part. residual += part; out = RMSNorm(residual) * norm_weight.
    kResidualRmsNorm,
    // One part. residual += part; out is not written.
    kResidual,
  };
  Kind kind = Kind::kStore;
  const RopeKvAppend* rope = nullptr;  // kRopeKvAppend
  Tensor residual;                     // kResidual*: [rows, out_dim]
  const float* norm_weight = nullptr;  // kResidualRmsNorm
  NormId norm_id;                      // kResidualRmsNorm, as RopeKvAppend's
  float eps = 0;                       // kResidualRmsNorm
};

// One low-rank part of merged weights.
struct MergeTerm {
  const PackedLora* weights = nullptr;
  float scale = 0;
};
// Merge makes rows in groups of this many.
inline constexpr int64_t kMergeRows = 32;

class Ops {
 public:
  virtual ~Ops() = default;

  // "reference", "cpu", ...; and the target in use, for example "AVX3_ZEN4".
  virtual std::string Name() const = 0;
  virtual std::string Target() const = 0;
  virtual std::unique_ptr<Stream> NewStream() = 0;

  // ---- memory --------------------------------------------------------------

  // Whether the operators use the host's memory.
  virtual bool is_on_host() const { return true; }
  // Errors: RESOURCE_EXHAUSTED naming the bytes.
  virtual absl::StatusOr<std::unique_ptr<Memory>> Allocate(int64_t size_bytes);
  // Copies from the host; `host` may change as soon as the call returns.
  virtual void CopyIn(const void* host, void* memory, int64_t size_bytes,
                      Stream& stream);
  // Copies to the host; `host` holds the bytes after Stream::Sync.
  virtual void CopyOut(const void* memory, void* host, int64_t size_bytes,
                       Stream& stream);
  // Memory that Allocate can still give; 0 = unknown.
  virtual int64_t free_bytes() const { return 0; }
  // Steps so far that were a single launch of a graph. Thread-safe.
  virtual int64_t num_graph_launches() const { return 0; }
  // The first fault of the device, INTERNAL; nothing that it computed since is
  // to be trusted. Stays until the end. Thread-safe.
  virtual absl::Status status() const { return absl::OkStatus(); }

  // The operators of training in the same memory, which outlive neither these
  // nor their weights. Errors: UNIMPLEMENTED: a backend whose operators of
  // training are made on their own, or that has none; RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::unique_ptr<TrainOps>> NewTrainOps();

  // ---- packing -------------------------------------------------------------

  // Copies `w` [out_dim, in_dim] (any dtype) into the backend's layout as
  // `dtype`; narrowing rounds to nearest even, kI8 quantizes (block_int8.h).
  // A backend with one dtype only rounds to that; REQUIRES: it has kI8. Null if
  // the device has no memory for it.
  virtual std::unique_ptr<PackedWeight> PackWeight(ConstTensor w,
                                                   DType dtype) = 0;
  // Names the form of packed_bytes(); changes when it does. Empty: none.
  virtual std::string PackedLayout() const { return ""; }
  // A weight from its packed_bytes(), which are copied. Null if their number
  // does not fit or the backend does not offer that.
  virtual std::unique_ptr<PackedWeight> RestoreWeight(int64_t out_dim,
                                                      int64_t in_dim,
                                                      DType dtype,
                                                      absl::string_view bytes);
  // Copies A [rank, in_dim] and B [out_dim, rank], each kept as its own dtype.
  // Null if the device has no memory for them.
  virtual std::unique_ptr<PackedLora> PackLora(ConstTensor a,
                                               ConstTensor b) = 0;
  // The same in 8 bits (lora_int8.h). REQUIRES: has_int8_lora().
  virtual bool has_int8_lora() const { return false; }
  virtual std::unique_ptr<PackedLora> PackLoraInt8(ConstTensor a,
                                                   ConstTensor b);

  // out [n, in_dim] f32 = rows row_begin, ... of W + sum_i scale_i B_i A_i, to
  // host memory: per term delta = one f32 FMA chain over ascending r from 0,
  // then row += scale * delta in one FMA. Without terms it is W as stored. On
  // the calling thread, any thread, as packing.
  virtual void MergeRows(const PackedWeight& w,
                         std::span<const MergeTerm> terms, int64_t row_begin,
                         Tensor out) const = 0;

  // A weight for Merge to fill; its content is not defined before. Null: the
  // backend does not offer that, and whole weights are made by MergeRows and
  // PackWeight. From any thread.
  virtual std::unique_ptr<PackedWeight> NewWeight(int64_t out_dim,
                                                  int64_t in_dim, DType dtype);
  // Rows [row_begin, row_end) of `to` = gain * (W + sum_i scale_i B_i A_i):
  // arithmetic as MergeRows, then each row times its gain [out_dim] (null = 1),
  // then one rounding to the dtype of `to`. REQUIRES: `to` is of NewWeight, has
  // the shape of `w` and is read by nobody; row_begin and row_end are multiples
  // of kMergeRows, or row_end is out_dim.
  virtual void Merge(const PackedWeight& w, std::span<const MergeTerm> terms,
                     const float* gain, int64_t row_begin, int64_t row_end,
                     PackedWeight& to, Stream& stream);

  // ---- primitive operators -------------------------------------------------

  // y[i, :] = table[tokens[i], :] as f32. table is a packed lm_head/embedding
  // [vocab, hidden]. REQUIRES: 0 <= tokens[i] < vocab.
  virtual void Embed(const PackedWeight& table, std::span<const Token> tokens,
                     Tensor y, Stream& stream) = 0;

  // y [rows, out] = x [rows, in] W^T + bias.
  virtual void Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                    Tensor y, Stream& stream) = 0;

  // y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight (Zhang and
  // Sennrich 2019). y may be x. Per head: x viewed as [rows * heads, head_dim].
  virtual void RmsNorm(ConstTensor x, const float* weight, float eps, Tensor y,
                       Stream& stream) = 0;

  // Rotates each head of x [rows, heads * head_dim] in place: with c, s =
  // cos, sin [rows, head_dim / 2], (a, b) = (x[j], x[j + head_dim / 2]) becomes
  // (a c - b s, b c + a s) (Su et al. 2021, halves as in Hugging Face).
  virtual void Rope(Tensor x, int64_t head_dim, const float* cos,
                    const float* sin, Stream& stream) = 0;

  // Writes k, v [rows, kv_heads * head_dim] to the cache at each row's
  // position.
  virtual void KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                        std::span<const SequenceRows> sequences,
                        Stream& stream) = 0;

  // Copies whole blocks: for each (from, to), K and V of block `to` become
  // those of `from` (copy on write of a shared last block).
  virtual void KvCopy(const PagedKvView& kv,
                      std::span<const std::pair<int32_t, int32_t>> blocks,
                      Stream& stream) = 0;

  // y[i, :] = x[rows[i], :].
  virtual void GatherRows(ConstTensor x, std::span<const int32_t> rows,
                          Tensor y, Stream& stream) = 0;

  // Causal attention of q [rows, heads * head_dim] over the cache, which
  // already holds the rows' own k and v. Head h reads kv head
  // h / (heads / kv_heads). window > 0: position i sees j > i - window only.
  //   y[i] = softmax(scale * q[i] K^T) V
  virtual void PagedAttention(ConstTensor q, const PagedKvView& kv,
                              std::span<const SequenceRows> sequences,
                              float scale, int64_t window, Tensor y,
                              Stream& stream) = 0;

  // y = silu(gate) * up, silu(z) = z / (1 + exp(-z)). y may be gate or up.
  virtual void SiluMul(ConstTensor gate, ConstTensor up, Tensor y,
                       Stream& stream) = 0;

  // y += x.
  virtual void ResidualAdd(ConstTensor x, Tensor y, Stream& stream) = 0;

  // LoRA shrink: for each segment and term that adapts `id`, for each of its
  // rows t: v[t, 0:rank) = x[t, :] A^T. v is ragged: see LoraLayout.
  virtual void LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x,
                          float* v, Stream& stream) = 0;

  // LoRA expand: y[t, :] += (scaling * scale) * (v[t, :] B^T), terms of a
  // segment in their order.
  virtual void LoraExpand(LinearId id, const LoraBatch& lora, const float* v,
                          Tensor y, Stream& stream) = 0;

  // Shrink of one-hot rows, for an embedding: v[t, 0:rank) = A[:, tokens[t]],
  // with the layout of LoraShrink. REQUIRES: 0 <= tokens[t] < in_dim.
  virtual void LoraLookup(LinearId id, const LoraBatch& lora,
                          std::span<const Token> tokens, float* v,
                          Stream& stream) = 0;

  // y[i, j] = gain[j] * y[i, j] + bias[j], one FMA. bias may be null: a
  // product.
  virtual void ScaleColumns(const float* gain, const float* bias, Tensor y,
                            Stream& stream) = 0;

  // y[:, cols[j]] = x[:, j]; cols ascend.
  virtual void ScatterColumns(ConstTensor x, std::span<const int32_t> cols,
                              Tensor y, Stream& stream) = 0;

  // Chooses one token per row of logits [rows, vocab]; logits may be
  // overwritten. out[i].top is filled as params[i].num_logprobs says.
  virtual void Sample(Tensor logits, std::span<const SamplingRow> params,
                      std::span<SampledRow> out, Stream& stream) = 0;

  // out[i] = log-probability of targets[i] and the `top` best of row i of raw
  // logits [rows, vocab] (prompt logprobs).
  virtual void Logprobs(ConstTensor logits, std::span<const Token> targets,
                        int32_t num_logprobs, std::span<SampledRow> out,
                        Stream& stream) = 0;

  // ---- group operators -----------------------------------------------------

  // A hint: the group after the next one reads these weights. A backend may
  // bring them nearer while it waits for something else.
  virtual void WillRead(std::span<const LinearPart>) {}

  // The linears of one input together: x [rows, in] -> parts (+ LoRA of each)
  // -> epilogue -> out. The default composes the primitives above; backends
  // override it with fused code that gives the same bits as their own
  // primitives.
  virtual void LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                           const LoraBatch& lora, const Epilogue& epilogue,
                           Tensor out, Stream& stream);

  // Embed, with what the rows' adapters change of kEmbedTokens: their own
  // table, replaced rows, then the low-rank part, then the gain. The default
  // composes the primitives above.
  virtual void EmbedGroup(const PackedWeight& table,
                          std::span<const Token> tokens, const LoraBatch& lora,
                          Tensor y, Stream& stream);

  // RmsNorm, with the weights that the rows' adapters have for `id`. x may be
  // y. `heads` > 1: x and weights are those of [rows * heads, cols / heads].
  virtual void NormGroup(ConstTensor x, NormId id, const float* weight,
                         float eps, const LoraBatch& lora, int64_t heads,
                         Tensor y, Stream& stream);
};

// Where v of (segment, term, row) begins for one linear: terms that adapt the
// linear lie one after the other in the order of segments and terms, each as
// [rows of the segment, rank], row-major. Returns the total number of floats;
// `offset`, if not null, gets one entry per (segment, term), -1 = not adapted.
int64_t LoraLayout(LinearId id, const LoraBatch& lora,
                   std::vector<int64_t>* offsets);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_OPS_H_
