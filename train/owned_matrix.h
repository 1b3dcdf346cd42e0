// An OwnedMatrix is an f32 matrix with its memory, where a backend's operators
// can use it: taken once, for the largest batch.
//
// Thread-compatible. The backend must outlive it.

#ifndef LORIKEET_TRAIN_OWNED_MATRIX_H_
#define LORIKEET_TRAIN_OWNED_MATRIX_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace lorikeet {

class OwnedMatrix {
 public:
  // Takes memory for so many rows and columns. Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(Ops& ops, int64_t rows, int64_t cols) {
    const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
    ASSIGN_OR_RETURN(memory_, ops.Allocate(bytes));
    return absl::OkStatus();
  }
  // Contents do not survive. REQUIRES: that much was reserved.
  Tensor Resize(int64_t rows, int64_t cols) {
    const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
    CHECK_LE(bytes, size_bytes());
    view_ = Tensor::F32(static_cast<float*>(memory_->data()), rows, cols);
    return view_;
  }
  Tensor view() const { return view_; }
  int64_t size_bytes() const {
    return memory_ == nullptr ? 0 : memory_->size_bytes();
  }

 private:
  std::unique_ptr<Memory> memory_;
  Tensor view_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_OWNED_MATRIX_H_
