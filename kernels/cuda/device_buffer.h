// A DeviceBuffer owns bytes of device memory, a PinnedBuffer bytes of host
// memory that the device copies from and to on its own. Aligned to 256 bytes at
// least.
//
// Move-only. REQUIRES of destroying a DeviceBuffer: as MemoryPool::Free.

#ifndef LORIKEET_KERNELS_CUDA_DEVICE_BUFFER_H_
#define LORIKEET_KERNELS_CUDA_DEVICE_BUFFER_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/cuda/memory_pool.h"
#include "kernels/memory.h"

namespace lorikeet::cuda {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Errors: those of the pool, which outlives the buffer.
  static absl::StatusOr<DeviceBuffer> Allocate(MemoryPool& pool,
                                               int64_t size_bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~DeviceBuffer();

  char* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  MemoryPool* pool_ = nullptr;
  char* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  // Errors: RESOURCE_EXHAUSTED naming the bytes.
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t size_bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  ~PinnedBuffer();

  char* data() const { return data_; }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  char* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

// What Ops::Allocate gives.
class CudaMemory final : public Memory {
 public:
  explicit CudaMemory(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  void* data() const override { return buffer_.data(); }
  int64_t size_bytes() const override { return buffer_.size_bytes(); }

 private:
  DeviceBuffer buffer_;
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_DEVICE_BUFFER_H_
