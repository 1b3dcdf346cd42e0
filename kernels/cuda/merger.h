// A Merger computes rows of merged weights on the device and brings them to the
// host, over a stream of its own, so that it does not wait for a step.
//
// Rows go in slices through buffers that it has from the start: a merge never
// lacks memory. Thread-safe.

#ifndef LORIKEET_KERNELS_CUDA_MERGER_H_
#define LORIKEET_KERNELS_CUDA_MERGER_H_

#include <cuda_runtime.h>

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/packed.h"
#include "kernels/ops.h"

namespace lorikeet::cuda {

// The terms as the kernel takes them, for rows from `row_begin` on.
std::vector<MergeTermArgs> MergeArgsOf(std::span<const MergeTerm> terms,
                                       int64_t row_begin);

class Merger {
 public:
  // Errors: RESOURCE_EXHAUSTED, INTERNAL.
  static absl::StatusOr<std::unique_ptr<Merger>> Create(MemoryPool& pool);
  ~Merger();

  // As Ops::MergeRows. Errors: INTERNAL. REQUIRES: a row and the terms fit into
  // a slice, 4 MiB.
  absl::Status Run(const CudaWeight& w, std::span<const MergeTerm> terms,
                   int64_t row_begin, Tensor out);

 private:
  explicit Merger(cudaStream_t stream) : stream_(stream) {}
  absl::Status RunSlice(const CudaWeight& w, std::span<const MergeTerm> terms,
                        int64_t row_begin, Tensor out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const cudaStream_t stream_;
  Mutex mu_;
  // The terms, then the rows; the same on the device and pinned.
  DeviceBuffer device_ ABSL_GUARDED_BY(mu_);
  PinnedBuffer pinned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_MERGER_H_
