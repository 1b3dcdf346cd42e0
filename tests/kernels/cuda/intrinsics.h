// One kernel per function of kernels/cuda/device.h, or per few of a kind, in a
// library of its own: made by nvcc for a GPU, and as C++ for the emulated
// device. The test has the table of what they must give.

#ifndef LORIKEET_TESTS_KERNELS_CUDA_INTRINSICS_H_
#define LORIKEET_TESTS_KERNELS_CUDA_INTRINSICS_H_

#include <cstddef>
#include <cstdint>

namespace lorikeet::testing {

// The library's one function. Runs the kernel `name` over `count` words as one
// block of `threads` threads and fills `out_count` words. Returns a
// cudaError_t, -1 if there is no such kernel.
using RunIntrinsic = int (*)(const char* name, int threads, const uint32_t* in,
                             size_t count, uint32_t* out, size_t out_count);
inline constexpr char kRunIntrinsicSymbol[] = "lorikeet_run_intrinsic";

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_CUDA_INTRINSICS_H_
