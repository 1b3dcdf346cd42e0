// How launch.h hands a kernel over to the emulated device.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_LAUNCH_CALL_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_LAUNCH_CALL_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

namespace cuda_on_host {

// Enqueues one launch. `invoke(params)` is called once per thread of the grid;
// the `bytes` at `params` are the kernel's parameters, which it only reads.
cudaError_t LaunchCall(dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t stream, const void* kernel,
                       std::shared_ptr<const void> params, size_t bytes,
                       void (*invoke)(const void*));

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_LAUNCH_CALL_H_
