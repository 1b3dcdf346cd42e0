#include "kernels/reference/reference_ops.h"

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet {
namespace reference {

Matrix::Matrix(ConstTensor source, DType dtype)
    : rows_(source.rows),
      cols_(source.cols),
      dtype_(dtype),
      bytes_(source.rows * source.cols * SizeBytes(dtype)) {
  for (int64_t i = 0; i < rows_; ++i) {
    for (int64_t j = 0; j < cols_; ++j) {
      StoreElement(dtype, bytes_.data(), i * cols_ + j, source.At(i, j));
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
