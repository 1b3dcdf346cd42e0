// Views of matrices and the owner of their bytes.
//
// A Tensor is a row-major view with a row stride; it owns nothing. A Buffer
// owns 64-byte aligned host memory. Value type / move-only.

#ifndef LORIKEET_KERNELS_TENSOR_H_
#define LORIKEET_KERNELS_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/check.h"
#include "kernels/dtype.h"

namespace lorikeet {

// A view of [rows, cols] elements; row i starts at data + i * stride elements.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements between rows, >= cols

  static Tensor F32(float* data, int64_t rows, int64_t cols) {
    return {data, DType::kF32, rows, cols, cols};
  }
  // REQUIRES: dtype is kF32.
  float* f32(int64_t row) const {
    CHECK(dtype == DType::kF32);
    return static_cast<float*>(data) + row * stride;
  }
  Tensor Rows(int64_t begin, int64_t count) const {
    return {static_cast<char*>(data) + begin * stride * SizeBytes(dtype), dtype,
            count, cols, stride};
  }
  Tensor Cols(int64_t begin, int64_t count) const {
    return {static_cast<char*>(data) + begin * SizeBytes(dtype), dtype, rows,
            count, stride};
  }
};

// A read-only view; otherwise as Tensor.
struct ConstTensor {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  ConstTensor() = default;
  ConstTensor(const void* d, DType t, int64_t r, int64_t c, int64_t s)
      : data(d), dtype(t), rows(r), cols(c), stride(s) {}
  ConstTensor(const Tensor& t)  // NOLINT: every Tensor can be read
      : data(t.data),
        dtype(t.dtype),
        rows(t.rows),
        cols(t.cols),
        stride(t.stride) {}
  const float* f32(int64_t row) const {
    CHECK(dtype == DType::kF32);
    return static_cast<const float*>(data) + row * stride;
  }
  float At(int64_t row, int64_t col) const {
    return LoadElement(dtype, data, row * stride + col);
  }
};

// Owns `size_bytes` bytes of host memory, aligned to 64 (a cache line, and the
// widest vector). Fresh memory is zero.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size_bytes);
  char* data() const { return data_.get(); }
  int64_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> data_;
  int64_t size_bytes_ = 0;
};

// Asks for huge pages for every large Buffer from now on: fewer misses of the
// TLB while weights stream. A hint; the kernel may have none. Thread-safe.
void SetHugePages(bool wanted);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_TENSOR_H_
