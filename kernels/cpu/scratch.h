// A Scratch is memory that grows to the largest request and is then reused, so
// that a step allocates nothing after warm-up. Contents do not survive a
// request for more.
//
// Thread-compatible: each worker has its own.

#ifndef LORIKEET_KERNELS_CPU_SCRATCH_H_
#define LORIKEET_KERNELS_CPU_SCRATCH_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace lorikeet::cpu {

class Scratch {
 public:
  template <typename T>
  T* Get(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes > buffer_.size_bytes()) buffer_ = Buffer(bytes + bytes / 2);
    return buffer_.as<T>();
  }

 private:
  Buffer buffer_;
};

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_SCRATCH_H_
