// CUDA's errors as a Status. Pure.

#ifndef LORIKEET_KERNELS_CUDA_ERROR_H_
#define LORIKEET_KERNELS_CUDA_ERROR_H_

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lorikeet::cuda {

// OK for cudaSuccess; RESOURCE_EXHAUSTED out of memory; else INTERNAL, "WHAT:
// the runtime's text".
absl::Status ToStatus(cudaError_t error, absl::string_view what);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_ERROR_H_
