// Views of matrices and the owner of their bytes.
//
// A Tensor is a row-major view with a row stride; it owns nothing. A Buffer
// owns 64-byte aligned host memory. Value type / move-only.

#ifndef LORIKEET_KERNELS_TENSOR_H_
#define LORIKEET_KERNELS_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
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
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;

  char* data() const { return data_.get(); }
  int64_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  friend class Arena;
  Buffer(std::shared_ptr<char> data, int64_t size_bytes)
      : data_(std::move(data)), size_bytes_(size_bytes) {}

  std::shared_ptr<char> data_;  // shared with neighbours in an arena
  int64_t size_bytes_ = 0;
};

// Cuts buffers that live and die together out of large chunks, so that many
// small ones share huge pages: a matrix of 1 MB alone would lie on 4 KB pages,
// and streaming it is then limited by misses of the TLB. The memory of a chunk
// is given back when all its buffers are gone.
//
// Thread-safe.
class Arena {
 public:
  explicit Arena(int64_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}
  Buffer Allocate(int64_t size_bytes);

 private:
  const int64_t chunk_bytes_;
  Mutex mutex_;
  std::shared_ptr<char> chunk_ ABSL_GUARDED_BY(mutex_);
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t size_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Whether large buffers and arenas ask for huge pages; on at first. A hint: the
// kernel may have none. Concerns the whole process, as malloc does.
// Thread-safe.
void SetHugePages(bool wanted);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_TENSOR_H_
