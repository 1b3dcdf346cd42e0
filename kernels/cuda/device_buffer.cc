#include "kernels/cuda/device_buffer.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/error.h"

namespace lorikeet::cuda {
absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(MemoryPool& pool,
                                                    int64_t size_bytes) {
  CHECK_GE(size_bytes, 0);
  DeviceBuffer buffer;
  if (size_bytes == 0) return buffer;
  ASSIGN_OR_RETURN(buffer.data_, pool.Allocate(size_bytes));
  buffer.pool_ = &pool;
  buffer.size_bytes_ = size_bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) pool_->Free(data_, size_bytes_);
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t size_bytes) {
  PinnedBuffer buffer;
  void* p = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&p, static_cast<size_t>(size_bytes), cudaHostAllocDefault);
  if (error != cudaSuccess) {
    return ToStatus(error, absl::StrCat(size_bytes, " bytes of pinned memory"));
  }
  buffer.data_ = static_cast<char*>(p);
  buffer.size_bytes_ = size_bytes;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

}  // namespace lorikeet::cuda
