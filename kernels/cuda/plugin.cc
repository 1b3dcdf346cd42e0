// The library's one exported function.

#include <cstring>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda_plugin.h"

extern "C" __attribute__((visibility("default"))) bool lorikeet_cuda_open(
    const char* abi, const lorikeet::CudaOptions& options,
    lorikeet::CudaPluginResult* result) {
  if (std::strcmp(abi, LORIKEET_OPS_ABI) != 0) return false;
  absl::StatusOr<std::unique_ptr<lorikeet::cuda::CudaOps>> ops =
      lorikeet::cuda::CudaOps::Create(options);
  result->status = ops.status();
  if (ops.ok()) result->ops = *std::move(ops);
  return true;
}
