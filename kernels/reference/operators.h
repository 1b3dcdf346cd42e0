// The class behind NewReferenceOps; each operator is in the file of its name.
//
// Thread-compatible.

#ifndef LORIKEET_KERNELS_REFERENCE_OPERATORS_H_
#define LORIKEET_KERNELS_REFERENCE_OPERATORS_H_

#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace lorikeet::reference {

// Row-major, in its own dtype; int8 is kept as the numbers that it means.
class Matrix {
 public:
  Matrix(ConstTensor source, DType dtype);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  int64_t size_bytes() const { return bytes_.size_bytes(); }
  double At(int64_t row, int64_t col) const {
    return LoadElement(Stored(dtype_), bytes_.data(), row * cols_ + col);
  }
  // Rows [row_begin, row_begin + source.rows) = source, rounded.
  void Assign(int64_t row_begin, ConstTensor source);

 private:
  static DType Stored(DType dtype) {
    return dtype == DType::kI8 ? DType::kF32 : dtype;
  }
  void Quantize(int64_t row_begin, ConstTensor source);

  int64_t rows_;
  int64_t cols_;
  DType dtype_;
  Buffer bytes_;
};

class Weight final : public PackedWeight {
 public:
  Weight(ConstTensor w, DType dtype) : matrix(w, dtype) {}
  int64_t out_dim() const override { return matrix.rows(); }
  int64_t in_dim() const override { return matrix.cols(); }
  DType dtype() const override { return matrix.dtype(); }
  int64_t size_bytes() const override { return matrix.size_bytes(); }

  Matrix matrix;  // [out, in]
};

class Lora final : public PackedLora {
 public:
  Lora(ConstTensor a_in, ConstTensor b_in)
      : a(a_in, a_in.dtype), b(b_in, b_in.dtype) {}
  int64_t rank() const override { return a.rows(); }
  int64_t in_dim() const override { return a.cols(); }
  int64_t out_dim() const override { return b.rows(); }
  int64_t size_bytes() const override {
    return a.size_bytes() + b.size_bytes();
  }

  const Matrix a;  // [rank, in]
  const Matrix b;  // [out, rank]
};

class ReferenceOps final : public Ops {
 public:
  std::string Name() const override { return "reference"; }
  std::string Target() const override { return "double"; }
  std::unique_ptr<Stream> NewStream() override;
  std::unique_ptr<PackedWeight> PackWeight(ConstTensor w, DType dtype) override;
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
};

}  // namespace lorikeet::reference

#endif  // LORIKEET_KERNELS_REFERENCE_OPERATORS_H_
