#include "kernels/cuda/device_buffer.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/error.h"

namespace lorikeet::cuda {
namespace {

absl::Status OutOfMemory(int64_t size_bytes) {
  size_t free_bytes = 0, total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  return absl::ResourceExhaustedError(
      absl::StrCat("out of device memory: ", size_bytes, " bytes asked for, ",
                   free_bytes, " of ", total_bytes, " are free"));
}

}  // namespace

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(int64_t size_bytes) {
  CHECK_GE(size_bytes, 0);
  DeviceBuffer buffer;
  if (size_bytes == 0) return buffer;
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, static_cast<size_t>(size_bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this one is not sticky
    return OutOfMemory(size_bytes);
  }
  if (error != cudaSuccess) return ToStatus(error, "cudaMalloc");
  buffer.data_ = static_cast<char*>(p);
  buffer.size_bytes_ = size_bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

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
