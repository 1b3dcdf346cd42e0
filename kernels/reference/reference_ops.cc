#include "kernels/reference/reference_ops.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/block_int8.h"
#include "kernels/lora_int8.h"
#include "kernels/reference/operators.h"

namespace lorikeet {
namespace reference {

Matrix::Matrix(ConstTensor source, DType dtype)
    : rows_(source.rows),
      cols_(source.cols),
      dtype_(dtype),
      bytes_(source.rows * source.cols * SizeBytes(Stored(dtype))) {
  Assign(0, source);
}

void Matrix::Assign(int64_t row_begin, ConstTensor source) {
  CHECK_EQ(source.cols, cols_);
  CHECK(row_begin >= 0 && row_begin + source.rows <= rows_);
  if (dtype_ == DType::kI8) return Quantize(row_begin, source);
  for (int64_t i = 0; i < source.rows; ++i) {
    for (int64_t j = 0; j < cols_; ++j) {
      StoreElement(dtype_, bytes_.data(), (row_begin + i) * cols_ + j,
                   source.At(i, j));
    }
  }
}

void Matrix::Quantize(int64_t row_begin, ConstTensor source) {
  float block[kInt8Block];
  int8_t q[kInt8Block];
  for (int64_t i = 0; i < source.rows; ++i) {
    for (int64_t k = 0; k < cols_; k += kInt8Block) {
      const int64_t count = std::min(kInt8Block, cols_ - k);
      for (int64_t j = 0; j < count; ++j) block[j] = source.At(i, k + j);
      const float scale = FloatFromF16(QuantizeWeightBlock(block, count, q));
      for (int64_t j = 0; j < count; ++j) {
        bytes_.as<float>()[(row_begin + i) * cols_ + k + j] = scale * q[j];
      }
    }
  }
}

std::unique_ptr<Stream> ReferenceOps::NewStream() {
  return std::make_unique<HostStream>();
}

std::unique_ptr<PackedWeight> ReferenceOps::PackWeight(ConstTensor w,
                                                       DType dtype) {
  return std::make_unique<Weight>(w, dtype);
}

std::unique_ptr<PackedLora> ReferenceOps::PackLoraInt8(ConstTensor a,
                                                       ConstTensor b) {
  const auto rounded = [](ConstTensor m, auto round) {
    Buffer values(m.rows * m.cols * SizeBytes(DType::kF32));
    round(m, Tensor::F32(values.as<float>(), m.rows, m.cols));
    return values;
  };
  const Buffer a_values = rounded(a, RoundLoraA);
  const Buffer b_values = rounded(b, RoundLoraB);
  return PackLora(Tensor::F32(a_values.as<float>(), a.rows, a.cols),
                  Tensor::F32(b_values.as<float>(), b.rows, b.cols));
}

std::unique_ptr<PackedLora> ReferenceOps::PackLora(ConstTensor a,
                                                   ConstTensor b) {
  CHECK_GT(a.rows, 0);
  CHECK_EQ(a.rows, b.cols);
  return std::make_unique<Lora>(a, b);
}

}  // namespace reference

std::unique_ptr<Ops> NewReferenceOps() {
  return std::make_unique<reference::ReferenceOps>();
}

}  // namespace lorikeet
