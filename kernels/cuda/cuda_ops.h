// CudaOps computes on a GPU: cuBLASLt for the products with the base's weights
// (our own kernel if batch-invariant), our own kernels for the rest.
//
// Tensors are f32, weights and adapters bf16; what enters a product is rounded
// to bf16 once, sums are f32. A row's attention and LoRA do not depend on the
// batch; its products may, unless it is batch-invariant (see Matmul). Not yet
// run on a GPU: its tests run on the emulated device of tests/cuda_on_host.
//
// Engine thread only, but for Pack*, MergeRows, Allocate and status.

#ifndef LORIKEET_KERNELS_CUDA_CUDA_OPS_H_
#define LORIKEET_KERNELS_CUDA_CUDA_OPS_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lora_plan.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/merger.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda_plugin.h"
#include "kernels/ops.h"

namespace lorikeet::cuda {

class CudaOps final : public Ops {
 public:
  // On the first device.
  // Errors: FAILED_PRECONDITION if there is no driver, no device, or one below
  // sm_80; RESOURCE_EXHAUSTED; INTERNAL.
  static absl::StatusOr<std::unique_ptr<CudaOps>> Create(
      const CudaOptions& options);

  std::string Name() const override { return "cuda"; }
  std::string Target() const override { return target_; }
  std::unique_ptr<Stream> NewStream() override;

  bool is_on_host() const override { return false; }
  absl::StatusOr<std::unique_ptr<Memory>> Allocate(int64_t size_bytes) override;
  void CopyIn(const void* host, void* memory, int64_t size_bytes,
              Stream& stream) override;
  void CopyOut(const void* memory, void* host, int64_t size_bytes,
               Stream& stream) override;
  int64_t free_bytes() const override;
  int64_t num_graph_launches() const override { return graph_launches_.load(); }
  absl::Status status() const override;
  absl::StatusOr<std::unique_ptr<TrainOps>> NewTrainOps() override;

  std::unique_ptr<PackedWeight> PackWeight(ConstTensor w, DType dtype) override;
  std::unique_ptr<PackedLora> PackLora(ConstTensor a, ConstTensor b) override;
  void MergeRows(const PackedWeight& w, std::span<const MergeTerm> terms,
                 int64_t row_begin, Tensor out) const override;
  std::unique_ptr<PackedWeight> NewWeight(int64_t out_dim, int64_t in_dim,
                                          DType dtype) override;
  void Merge(const PackedWeight& w, std::span<const MergeTerm> terms,
             const float* gain, int64_t row_begin, int64_t row_end,
             PackedWeight& to, Stream& stream) override;

  void Embed(const PackedWeight& table, std::span<const Token> tokens, Tensor y,
             Stream& stream) override;
  void Gemm(ConstTensor x, const PackedWeight& w, const float* bias, Tensor y,
            Stream& stream) override;
  void RmsNorm(ConstTensor x, const float* weight, float eps, Tensor y,
               Stream& stream) override;
  void Rope(Tensor x, int64_t head_dim, const float* cos, const float* sin,
            Stream& stream) override;
  void KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                std::span<const SequenceRows> sequences,
                Stream& stream) override;
  void KvCopy(const PagedKvView& kv,
              std::span<const std::pair<int32_t, int32_t>> blocks,
              Stream& stream) override;
  void GatherRows(ConstTensor x, std::span<const int32_t> rows, Tensor y,
                  Stream& stream) override;
  void PagedAttention(ConstTensor q, const PagedKvView& kv,
                      std::span<const SequenceRows> sequences, float scale,
                      int64_t window, Tensor y, Stream& stream) override;
  void SiluMul(ConstTensor gate, ConstTensor up, Tensor y,
               Stream& stream) override;
  void ResidualAdd(ConstTensor x, Tensor y, Stream& stream) override;
  void LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x, float* v,
                  Stream& stream) override;
  void LoraExpand(LinearId id, const LoraBatch& lora, const float* v, Tensor y,
                  Stream& stream) override;
  void LoraLookup(LinearId id, const LoraBatch& lora,
                  std::span<const Token> tokens, float* v,
                  Stream& stream) override;
  void ScaleColumns(const float* gain, const float* bias, Tensor y,
                    Stream& stream) override;
  void ScatterColumns(ConstTensor x, std::span<const int32_t> cols, Tensor y,
                      Stream& stream) override;
  void Sample(Tensor logits, std::span<const SamplingRow> params,
              std::span<SampledRow> out, Stream& stream) override;
  void Logprobs(ConstTensor logits, std::span<const Token> targets,
                int32_t num_logprobs, std::span<SampledRow> out,
                Stream& stream) override;
  void LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                   const LoraBatch& lora, const Epilogue& epilogue, Tensor out,
                   Stream& stream) override;
  void EmbedGroup(const PackedWeight& table, std::span<const Token> tokens,
                  const LoraBatch& lora, Tensor y, Stream& stream) override;
  void NormGroup(ConstTensor x, NormId id, const float* weight, float eps,
                 const LoraBatch& lora, int64_t heads, Tensor y,
                 Stream& stream) override;

 private:
  // What adapters change of one linear, beside the low-rank parts.
  using Overrides = std::vector<RowRange<LoraSlot::Override>>;

  explicit CudaOps(const CudaOptions& options) : options_(options) {}

  // y = x W^T + bias, wherever y lies.
  void Product(Rows<const Bf16> x, const PackedWeight& w, const float* bias,
               Tensor y, CudaStream& stream);
  // The same for a part, each row with the weight and the bias that it has;
  // rows that share them are one product.
  void Products(Rows<const Bf16> x, const LinearPart& part,
                const Overrides& overrides, Tensor y, CudaStream& stream);
  // What follows the low-rank parts: gains, then replaced rows.
  void FinishOverrides(Rows<const Bf16> x, const LinearPart& part,
                       const Overrides& overrides, Tensor y,
                       CudaStream& stream);
  void ApplyGain(const LoraSlot::Override& o, const float* base_bias, Tensor y,
                 CudaStream& stream);
  void EmbedReplaced(const LoraSlot::Override& o, std::span<const Token> tokens,
                     Tensor y, CudaStream& stream);
  // y[i] += the adapters' part of linear i, for all linears of a group.
  void AddLora(Rows<const Bf16> x, const LoraPlan& plan,
               std::span<const Tensor> y, CudaStream& stream);
  void Finish(const Epilogue& epilogue, const LoraBatch& lora,
              std::span<const Tensor> y, Tensor out, CudaStream& stream);
  void Fail(const absl::Status& status) const;

  const CudaOptions options_;
  std::string target_;
  std::unique_ptr<MemoryPool> pool_;  // goes last
  std::unique_ptr<Packer> packer_;
  std::unique_ptr<Merger> merger_;
  std::unique_ptr<Matmul> matmul_;  // null if batch-invariant
  std::atomic<int64_t> graph_launches_{0};
  mutable Mutex mu_;
  mutable absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_CUDA_OPS_H_
