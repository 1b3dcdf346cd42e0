// The CUDA backend on the emulated device, as tests open it.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_EMULATED_BACKEND_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_EMULATED_BACKEND_H_

#include <memory>
#include <string>

#include "kernels/cuda_plugin.h"
#include "kernels/ops.h"
#include "tests/cuda_on_host/options.h"

namespace lorikeet::testing {

// The library of a build: fast, checked or asan. Without a name that of
// $LORIKEET_CUDA_ON_HOST_BUILD, else checked.
std::string CudaOnHostPath(const std::string& build = "");
// Whether it was built.
bool HasCudaOnHost(const std::string& path);
// Aborts with the error if it cannot be opened.
std::unique_ptr<Ops> OpenCudaOnHost(const std::string& path,
                                    const CudaOptions& options = {});
const cuda_on_host::Control& CudaOnHostControl(const std::string& path);
// Fails the test for each finding since the last call.
void ExpectNoFindings(const cuda_on_host::Control& control);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_EMULATED_BACKEND_H_
