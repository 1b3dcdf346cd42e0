// The class behind CreateCpuTrainOps; each operator is in the file of its name.
//
// Thread-compatible.

#ifndef LORIKEET_KERNELS_CPU_TRAIN_OPERATORS_H_
#define LORIKEET_KERNELS_CPU_TRAIN_OPERATORS_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "base/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/train/train_kernels.h"
#include "kernels/train_ops.h"

namespace lorikeet::cpu {

// Of a frozen matrix.
inline const Panels& PanelsOf(const TrainMatrix& w) {
  return static_cast<const Weight&>(*w.packed).panels;
}

class CpuTrainOps final : public TrainOps {
 public:
  // `rounds_input`: compute dtype bf16, for which there is a kernel.
  CpuTrainOps(ThreadPool& pool, const KernelTable& kernels,
              const TrainKernels& train, bool rounds_input);

  void Linear(ConstTensor x, const TrainMatrix& w, const float* bias, Tensor y,
              Stream& stream) override;
  void LinearBackward(ConstTensor dy, const TrainMatrix& w, bool accumulate,
                      Tensor dx, Stream& stream) override;
  void Product(ProductForm form, float alpha, ConstTensor a, ConstTensor b,
               bool accumulate, Tensor c, Stream& stream) override;
  void MergedRowSquares(const TrainMatrix& w, ConstTensor a, ConstTensor b,
                        float scale, std::span<double> out,
                        Stream& stream) override;
  void Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                 std::span<const SequenceRows> sequences,
                 const AttentionHeads& heads, Tensor y, Tensor lse,
                 Stream& stream) override;
  void AttentionBackward(ConstTensor q, ConstTensor k, ConstTensor v,
                         ConstTensor y, ConstTensor lse, ConstTensor dy,
                         std::span<const SequenceRows> sequences,
                         const AttentionHeads& heads, Tensor dq, Tensor dk,
                         Tensor dv, Stream& stream) override;
  void Clear(Tensor x, Stream& stream) override;
  void Copy(ConstTensor x, Tensor y, Stream& stream) override;
  void RmsNormBackward(ConstTensor x, const float* weight, float eps,
                       ConstTensor dy, bool accumulate, Tensor dx,
                       float* dweight, Stream& stream) override;
  void SiluMulBackward(ConstTensor gate, ConstTensor up, ConstTensor dy,
                       Tensor dgate, Tensor dup, Stream& stream) override;
  void EmbedBackward(std::span<const Token> tokens, ConstTensor dy,
                     Tensor dtable, Stream& stream) override;
  void AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                     Stream& stream) override;
  void Dropout(ConstTensor x, const DropoutKey& key, bool accumulate, Tensor y,
               Stream& stream) override;
  void CrossEntropy(Tensor logits, std::span<const Token> targets,
                    float gradient_scale, std::span<TokenLoss> out,
                    Stream& stream) override;
  void SumOfSquares(std::span<const float> x, double* out,
                    Stream& stream) override;
  void AdamW(const AdamWStep& step, std::span<const float> gradient,
             std::span<float> parameter, std::span<float> m, std::span<float> v,
             Stream& stream) override;

 private:
  float* scratch(int worker, int64_t count) {
    return scratch_[static_cast<size_t>(worker)].Get<float>(count);
  }
  // Calls fn(begin, end, worker) over rows, on the pool if it is worth it.
  void ForRows(int64_t rows, int64_t cols,
               absl::FunctionRef<void(int64_t, int64_t, int)> fn);
  // c (+)= alpha x w for some rows and the 32 columns of panel `panel` of c.
  void MultiplyRows(TileProductArgs args, int64_t row_begin, int64_t row_end,
                    int64_t panel, Tensor c);

  // out [in_dim][32] = 32 rows of w, columns one after the other.
  void WidenPanel(const TrainMatrix& w, int64_t panel, float* out);

  // bf16_linear.cc.
  bool RoundsInputOf(const TrainMatrix& w) const;
  Bf16GemmArgs RoundInput(ConstTensor x);
  // Columns of one panel of y (+)= x times that panel; `tile` [rows, 32].
  void MultiplyPanel(Bf16GemmArgs args, bool accumulate, int64_t panel,
                     float* tile, Tensor y);
  void LinearBf16(ConstTensor x, const TrainMatrix& w, const float* bias,
                  Tensor y);
  void LinearBackwardBf16(ConstTensor dy, const TrainMatrix& w, bool accumulate,
                          Tensor dx);

  ThreadPool& pool_;
  const KernelTable kernels_;
  const TrainKernels train_;
  const bool rounds_input_;
  std::vector<Scratch> scratch_;  // per worker
  Scratch rounded_;               // x in bf16
  Scratch head_gradients_;        // dk and dv of each head
};

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_TRAIN_OPERATORS_H_
