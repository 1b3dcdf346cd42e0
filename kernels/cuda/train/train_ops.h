// CudaTrainOps trains on a GPU, in the memory and on the streams of a CudaOps.
//
// Products with frozen weights are cuBLASLt's: their inputs (x forward, dy on
// the way back) are rounded to bf16 once, sums and results are f32, as with
// --compute-dtype bf16 on the CPU; W is read transposed, there is no second
// copy. All else is f32 by our own kernels. Results do not depend on the device
// where cuBLASLt's do not. Not yet run on a GPU: its tests run on the emulated
// device of tests/cuda_on_host.
//
// Engine thread only.

#ifndef LORIKEET_KERNELS_CUDA_TRAIN_TRAIN_OPS_H_
#define LORIKEET_KERNELS_CUDA_TRAIN_TRAIN_OPS_H_

#include <memory>
#include <utility>

#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/train_ops.h"

namespace lorikeet::cuda {

class CudaTrainOps final : public TrainOps {
 public:
  explicit CudaTrainOps(std::unique_ptr<Matmul> matmul)
      : matmul_(std::move(matmul)) {}

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
  // c = alpha * op(a) op(b) + bias, or += with `accumulate`.
  void Multiply(ProductOperands operands, float alpha, Rows<const float> a,
                Rows<const float> b, const float* bias, bool accumulate,
                Rows<float> c, CudaStream& stream);

  const std::unique_ptr<Matmul> matmul_;
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_TRAIN_TRAIN_OPS_H_
