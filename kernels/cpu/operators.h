// The class behind NewCpuOps; each operator is in the file of its name.
//
// Thread-compatible.

#ifndef LORIKEET_KERNELS_CPU_OPERATORS_H_
#define LORIKEET_KERNELS_CPU_OPERATORS_H_

#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/vocab_scan.h"
#include "kernels/ops.h"

namespace lorikeet::cpu {

// One LoRA term of a segment for one linear.
struct LoraWork {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const Lora* weights = nullptr;
  float scale = 0;           // scaling * request scale
  const float* v = nullptr;  // [rows, rank]
};

// x of a group in the forms that its weights need.
struct GroupInput {
  ConstTensor f32;
  const uint16_t* bf16 = nullptr;
  int64_t bf16_stride = 0;
  Int8Rows int8;
};
// What adapters change of one linear, beside the low-rank parts.
using Overrides = std::vector<RowRange<LoraSlot::Override>>;

class CpuOps final : public Ops {
 public:
  CpuOps(ThreadPool& pool, std::string target, const KernelTable& kernels,
         const CpuOptions& options);

  std::string Name() const override { return "cpu"; }
  std::string Target() const override { return target_; }
  std::unique_ptr<Stream> NewStream() override;
  std::unique_ptr<PackedWeight> PackWeight(ConstTensor w, DType dtype) override;
  std::string PackedLayout() const override { return "panels1"; }
  std::unique_ptr<PackedWeight> RestoreWeight(int64_t out_dim, int64_t in_dim,
                                              DType dtype,
                                              absl::string_view bytes) override;
  std::unique_ptr<PackedLora> PackLora(ConstTensor a, ConstTensor b) override;
  bool has_int8_lora() const override { return true; }
  std::unique_ptr<PackedLora> PackLoraInt8(ConstTensor a,
                                           ConstTensor b) override;
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
  void WillRead(std::span<const LinearPart> parts) override;
  void LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                   const LoraBatch& lora, const Epilogue& epilogue, Tensor out,
                   Stream& stream) override;

 private:
  // A piece of a shrink: one block of ranks against some rows.
  struct ShrinkTask {
    const Lora* weights = nullptr;
    int64_t rank_begin = 0;
    int64_t ranks = 0;
    int64_t row_begin = 0;
    int64_t row_count = 0;
    float* v = nullptr;  // of row_begin and rank_begin
  };
  // Some neighbouring panels of a part; for gate and up, of both.
  struct PanelTask {
    size_t part = 0;
    int64_t panel = 0;
    int64_t count = 0;
  };
  struct AttentionTask {
    const SequenceRows* sequence = nullptr;
    int64_t row_begin = 0;
    int64_t row_count = 0;
    int64_t head_begin = 0;  // kv heads
    int64_t head_count = 0;
    int64_t first_split = 0;  // that any of the rows sees
    int64_t split_count = 0;
    int64_t partial = 0;  // index of the first partial result
  };
  struct SplitTask {
    int64_t task = 0;
    int64_t split = 0;
  };
  struct AttentionShape;
  // Where the linears of a group leave their results.
  struct GroupOutput;

  // Calls fn(begin, end) over rows: on the pool if the work is worth it.
  void ForRows(int64_t rows, int64_t cols,
               absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

  // Appends the terms that adapt `id`; v begins at `v`. Returns floats of v.
  int64_t CollectLora(LinearId id, const LoraBatch& lora, float* v,
                      std::vector<LoraWork>& work);
  void CollectShrink(const std::vector<LoraWork>& work);
  void RunShrink(ConstTensor x);
  // Adds LoRA to columns [32 * panel, + 32 * count) of rows
  // [row_begin, row_end) held in y.
  void ExpandPanels(const std::vector<LoraWork>& work, int64_t row_begin,
                    int64_t row_end, int64_t panel, int64_t count, float* y,
                    int64_t y_stride);
  void PrefetchExpand(const std::vector<LoraWork>& work, int64_t panel,
                      int64_t count);

  // group_input.cc. Brings x into the forms that the weights of `parts` and of
  // overrides_ are multiplied with; returns its f32 form.
  ConstTensor PrepareInput(ConstTensor x, std::span<const LinearPart> parts);
  bool RoundsInputOf(DType weight) const;
  ConstTensor SpreadRows(ConstTensor x);
  void RoundInput(ConstTensor x);
  void QuantizeInput(ConstTensor x);
  // x of the group, rows [row_begin, row_end), times some panels of a matrix.
  void MultiplyPanels(const PackedWeight& weight, const PanelTask& task,
                      int64_t row_begin, int64_t row_end, float* y,
                      int64_t y_stride);
  // read_ahead.cc. Tells each worker where its part of the announced weights
  // begins; `rows` are those of the step.
  void ReadAhead(int64_t rows);
  void PlanPanels(std::span<const LinearPart> parts, bool paired, int64_t rows);
  // Rows [row_begin, row_end) of one task of one part, with all that adapters
  // change, into `tile`. `index` is the part's in lora_ and overrides_.
  void ComputePanels(const LinearPart& part, size_t index,
                     const PanelTask& task, int64_t row_begin, int64_t row_end,
                     float* tile, int64_t tile_stride);
  void RunPanels(ConstTensor x, std::span<const LinearPart> parts,
                 const GroupOutput& output);
  void StoreTask(ConstTensor x, const LinearPart& part, const PanelTask& task,
                 Tensor y, bool add, float* tile);
  void SiluTask(ConstTensor x, std::span<const LinearPart> parts,
                const PanelTask& task, Tensor y, float* tile);
  void ReplaceRows(ConstTensor x, std::span<const LinearPart> parts, Tensor out,
                   Stream& stream);
  void FinishRope(const RopeKvAppend& rope, const LoraBatch& lora, Tensor q,
                  Tensor k, Tensor v);

  // merge.cc. A of a term as the rows that B's panels are multiplied with.
  void TransposeRanks(const RankBlocks& a, float* out);
  // Whether kernels_.bf16_merge can do it.
  bool MergesInBf16(const Panels& base, std::span<const MergeTerm> terms,
                    const Panels& to) const;
  // The same as pairs of ranks, see Bf16MergeArgs; from f32.
  void PairRanks(const RankBlocks& a, const float* transposed, uint32_t* out);
  void MergePanel(const Panels& base, std::span<const MergeTerm> terms,
                  const float* gain, int64_t panel, float* tile, Panels& to);
  void MergePanelBf16(const Panels& base, const MergeTerm& term,
                      const float* gain, int64_t panel, Panels& to);

  void PlanAttention(const AttentionShape& shape,
                     std::span<const SequenceRows> sequences);
  void AttendTask(const AttentionShape& shape, const AttentionTask& task,
                  int worker);
  void AttendSplits(const AttentionShape& shape);
  void AttendOneSplit(const AttentionShape& shape, const AttentionTask& task,
                      int64_t split, float* state, float* work);
  void MergeState(const AttentionShape& shape, const AttentionTask& task,
                  float* total, const float* part);
  void FinishTask(const AttentionShape& shape, const AttentionTask& task,
                  const float* state);

  void SampleRow(float* logits, int64_t vocab, const SamplingRow& params,
                 SampledRow& out, int worker);
  Token Draw(const float* logits, int64_t vocab, const SamplingRow& params,
             int worker);
  void FillLogprobs(const float* logits, int64_t vocab, Token token,
                    int32_t num_logprobs, SampledRow& out, int worker);

  ThreadPool& pool_;
  const std::string target_;
  const KernelTable kernels_;
  Arena weights_;
  Arena merged_;
  const bool rounds_input_;  // compute dtype bf16

  // Kept between calls so that their memory is.
  std::vector<Scratch> tiles_;    // per worker
  std::vector<Scratch> rows_;     // per worker
  std::vector<VocabScan> scans_;  // per worker
  GroupInput input_;
  Scratch spread_;                           // x of a group
  Scratch rounded_;                          // x in bf16
  Scratch quantized_[3];                     // q, scales, offsets
  Scratch shrunk_;                           // v of a group
  Scratch parts_;                            // k and v of a group
  Scratch partials_;                         // attention splits
  Scratch replaced_;                         // outputs of replaced rows
  std::vector<Scratch> transposed_;          // A of the terms of a merge
  Scratch paired_;                           // the same as pairs of bf16
  std::vector<std::vector<LoraWork>> lora_;  // per part
  std::vector<Overrides> overrides_;         // per part; mostly empty
  std::vector<ShrinkTask> shrink_tasks_;
  std::vector<PanelTask> panel_tasks_;
  std::vector<const Panels*> will_read_;
  std::vector<AttentionTask> attention_tasks_;
  std::vector<SplitTask> split_tasks_;
  std::vector<const SequenceRows*> sequence_of_row_;
};

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_OPERATORS_H_
