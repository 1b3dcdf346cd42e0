// An OwnedMatrix is an f32 matrix with its memory, which is kept from batch to
// batch and grows with need.
//
// Thread-compatible.

#ifndef LORIKEET_TRAIN_OWNED_MATRIX_H_
#define LORIKEET_TRAIN_OWNED_MATRIX_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace lorikeet {

class OwnedMatrix {
 public:
  // Contents do not survive.
  Tensor Resize(int64_t rows, int64_t cols) {
    const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
    if (bytes > buffer_.size_bytes()) {
      buffer_ = Buffer();  // give back before taking more
      buffer_ = Buffer(bytes);
    }
    view_ = Tensor::F32(buffer_.as<float>(), rows, cols);
    return view_;
  }
  Tensor view() const { return view_; }
  int64_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  Buffer buffer_;
  Tensor view_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_OWNED_MATRIX_H_
