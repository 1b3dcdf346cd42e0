#include "kernels/cuda/memory_pool.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/error.h"

namespace lorikeet::cuda {
namespace {

// The rest is for the driver, cuBLAS and others on the device.
int64_t DefaultBudget(int64_t free_bytes) {
  return free_bytes - free_bytes / 10;
}

absl::StatusOr<cudaMemPool_t> NewPool() {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  cudaMemPool_t pool = nullptr;
  RETURN_IF_ERROR(
      ToStatus(cudaMemPoolCreate(&pool, &properties), "a pool of memory"));
  uint64_t keep_all = std::numeric_limits<uint64_t>::max();
  RETURN_IF_ERROR(ToStatus(
      cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_all),
      "a pool of memory"));
  return pool;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemoryPool>> MemoryPool::Create(
    int64_t budget_bytes) {
  size_t free_bytes = 0, total_bytes = 0;
  RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes),
                           "the device's memory"));
  if (budget_bytes > static_cast<int64_t>(free_bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a budget of ", budget_bytes, " bytes, but ", free_bytes,
                     " of the device's ", total_bytes, " are free"));
  }
  if (budget_bytes == 0) {
    budget_bytes = DefaultBudget(static_cast<int64_t>(free_bytes));
  }
  ASSIGN_OR_RETURN(const cudaMemPool_t pool, NewPool());
  cudaStream_t stream = nullptr;
  const absl::Status status =
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
               "a stream for memory");
  if (!status.ok()) {
    cudaMemPoolDestroy(pool);
    return status;
  }
  return std::unique_ptr<MemoryPool>(
      new MemoryPool(pool, stream, budget_bytes));
}

MemoryPool::~MemoryPool() {
  CHECK_EQ(used_bytes_.load(), 0);
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
  cudaMemPoolDestroy(pool_);
}

absl::StatusOr<char*> MemoryPool::Allocate(int64_t size_bytes) {
  CHECK_GT(size_bytes, 0);
  const int64_t used = used_bytes_.fetch_add(size_bytes);
  void* p = nullptr;
  absl::Status status;
  if (size_bytes > budget_bytes_ - used) {
    status = absl::ResourceExhaustedError("");
  } else {
    cudaError_t error = cudaMallocFromPoolAsync(
        &p, static_cast<size_t>(size_bytes), pool_, stream_);
    if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // not sticky
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
    status = ToStatus(error, "memory");
  }
  if (status.ok()) return static_cast<char*>(p);
  used_bytes_.fetch_sub(size_bytes);
  if (!absl::IsResourceExhausted(status)) return status;
  return absl::ResourceExhaustedError(absl::StrCat(
      "out of device memory: ", size_bytes, " bytes asked for, ",
      budget_bytes_ - used, " of a budget of ", budget_bytes_, " are free"));
}

void MemoryPool::Free(char* p, int64_t size_bytes) {
  cudaFreeAsync(p, stream_);  // a fault of the device is told by its streams
  used_bytes_.fetch_sub(size_bytes);
}

}  // namespace lorikeet::cuda
