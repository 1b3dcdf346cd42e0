// How the tables of kernels/cuda call a kernel.

#ifndef LORIKEET_TESTS_KERNELS_CUDA_KERNEL_NAME_H_
#define LORIKEET_TESTS_KERNELS_CUDA_KERNEL_NAME_H_

#include <string>

namespace lorikeet::testing {

// "AttentionKernel<64>" of a mangled name.
std::string KernelName(const std::string& mangled);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_CUDA_KERNEL_NAME_H_
