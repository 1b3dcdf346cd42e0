// StagedOps lets the tests of operators, whose matrices lie on the host, run on
// a device: each call copies its tensors there, runs, waits, and copies back
// (StagedCall). Thread-compatible.

#ifndef LORIKEET_TESTS_KERNELS_STAGED_OPS_H_
#define LORIKEET_TESTS_KERNELS_STAGED_OPS_H_

#include <functional>
#include <memory>
#include <string>

#include "kernels/ops.h"

namespace lorikeet::testing {

class StagedOps final : public Ops {
 public:
  // `after_call` runs after each call: to look for findings.
  StagedOps(std::unique_ptr<Ops> device, std::function<void()> after_call)
      : device_(std::move(device)), after_call_(std::move(after_call)) {}

  Ops& device() { return *device_; }
  const std::function<void()>& after_call() const { return after_call_; }

  std::string Name() const override { return device_->Name(); }
  std::string Target() const override { return device_->Target(); }
  std::unique_ptr<Stream> NewStream() override { return device_->NewStream(); }
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
  std::unique_ptr<Ops> device_;
  std::function<void()> after_call_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_STAGED_OPS_H_
