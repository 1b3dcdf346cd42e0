// The class behind NewReferenceTrainOps; each operator is in the file of its
// name.
//
// Thread-compatible.

#ifndef LORIKEET_KERNELS_REFERENCE_TRAIN_OPERATORS_H_
#define LORIKEET_KERNELS_REFERENCE_TRAIN_OPERATORS_H_

#include "kernels/train_ops.h"

namespace lorikeet::reference {

// Element (row, col) of W.
double At(const TrainMatrix& w, int64_t row, int64_t col);

// to = value, or += with `accumulate`, rounded once.
inline void Put(double value, bool accumulate, float* to) {
  *to =
      static_cast<float>(accumulate ? static_cast<double>(*to) + value : value);
}

class ReferenceTrainOps final : public TrainOps {
 public:
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
};

}  // namespace lorikeet::reference

#endif  // LORIKEET_KERNELS_REFERENCE_TRAIN_OPERATORS_H_
