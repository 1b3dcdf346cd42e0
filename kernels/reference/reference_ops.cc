#include "kernels/reference/reference_ops.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/block_int8.h"
#include "kernels/reference/operators.h"

namespace lorikeet {
namespace reference {

Matrix::Matrix(ConstTensor source, DType dtype)
    : rows_(source.rows),
      cols_(source.cols),
      dtype_(dtype),
      bytes_(source.rows * source.cols * SizeBytes(Stored(dtype))) {
  if (dtype == DType::kI8) {
    Quantize(source);
    return;
  }
  for (int64_t i = 0; i < rows_; ++i) {
    for (int64_t j = 0; j < cols_; ++j) {
      StoreElement(dtype, bytes_.data(), i * cols_ + j, source.At(i, j));
    }
  }
}

void Matrix::Quantize(ConstTensor source) {
  float block[kInt8Block];
  int8_t q[kInt8Block];
  for (int64_t i = 0; i < rows_; ++i) {
    for (int64_t k = 0; k < cols_; k += kInt8Block) {
      const int64_t count = std::min(kInt8Block, cols_ - k);
      for (int64_t j = 0; j < count; ++j) block[j] = source.At(i, k + j);
      const float scale = FloatFromF16(QuantizeWeightBlock(block, count, q));
      for (int64_t j = 0; j < count; ++j) {
        bytes_.as<float>()[i * cols_ + k + j] = scale * q[j];
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
