// A MemoryPool is all of the device's memory that this backend uses: weights,
// KV cache, adapters and scratch come from one budget.
//
// Beneath it is a pool of the driver that keeps what it was given back, so that
// loading and evicting adapters costs neither a trip to the operating system
// nor a wait for the device, as cudaMalloc and cudaFree would. Memory is not
// taken before it is needed.
//
// Thread-safe. Outlives its buffers.

#ifndef LORIKEET_KERNELS_CUDA_MEMORY_POOL_H_
#define LORIKEET_KERNELS_CUDA_MEMORY_POOL_H_

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

namespace lorikeet::cuda {

class MemoryPool {
 public:
  // On the first device. `budget_bytes` 0: nine tenths of what is free.
  // Errors: RESOURCE_EXHAUSTED naming budget and what is free if that is less;
  // INTERNAL.
  static absl::StatusOr<std::unique_ptr<MemoryPool>> Create(
      int64_t budget_bytes);
  ~MemoryPool();

  int64_t budget_bytes() const { return budget_bytes_; }
  int64_t free_bytes() const { return budget_bytes_ - used_bytes_.load(); }

  // Ready for every stream when it returns; aligned to 256 bytes.
  // Errors: RESOURCE_EXHAUSTED naming the bytes, what is free and the budget.
  absl::StatusOr<char*> Allocate(int64_t size_bytes);
  // REQUIRES: what uses `p` is over, as the host has seen by waiting for it.
  void Free(char* p, int64_t size_bytes);

 private:
  MemoryPool(cudaMemPool_t pool, cudaStream_t stream, int64_t budget_bytes)
      : pool_(pool), stream_(stream), budget_bytes_(budget_bytes) {}

  const cudaMemPool_t pool_;
  const cudaStream_t stream_;  // of nothing but these calls
  const int64_t budget_bytes_;
  std::atomic<int64_t> used_bytes_{0};
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_MEMORY_POOL_H_
