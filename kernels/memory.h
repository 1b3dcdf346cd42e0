// Memory is a stretch of bytes where a backend's operators can read and write:
// the host's for host backends, the device's for others.
//
// Owns its bytes; the backend that made it must outlive it.

#ifndef LORIKEET_KERNELS_MEMORY_H_
#define LORIKEET_KERNELS_MEMORY_H_

#include <cstdint>
#include <utility>

#include "kernels/tensor.h"

namespace lorikeet {

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  virtual ~Memory() = default;

  virtual void* data() const = 0;
  virtual int64_t size_bytes() const = 0;
};

class HostMemory final : public Memory {
 public:
  explicit HostMemory(int64_t size_bytes) : buffer_(size_bytes) {}
  void* data() const override { return buffer_.data(); }
  int64_t size_bytes() const override { return buffer_.size_bytes(); }

 private:
  Buffer buffer_;
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_MEMORY_H_
