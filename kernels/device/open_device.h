// Opens the backend that a command line asks for: the CPU's, or CUDA's from its
// library beside the program.

#ifndef LORIKEET_KERNELS_DEVICE_OPEN_DEVICE_H_
#define LORIKEET_KERNELS_DEVICE_OPEN_DEVICE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "kernels/cuda_plugin.h"
#include "kernels/ops.h"
#include "kernels/train_ops.h"

namespace lorikeet {

struct DeviceOptions {
  std::string device = "auto";        // one of DeviceNames()
  bool int8_weights = false;          // the base is asked for in int8
  DType compute_dtype = DType::kF32;  // of the CPU
  CudaOptions cuda;
};

// auto, cpu, cuda, and in test builds cuda-on-host, the emulated device in the
// build that $LORIKEET_CUDA_ON_HOST_BUILD names.
std::vector<std::string> DeviceNames();

// auto is CUDA where a GPU answers, else, with a line in the log, the CPU,
// whose instruction set $LORIKEET_SIMD may name. `pool` outlives the backend.
// Errors: those of LoadCudaOps and CreateCpuOps, naming --device.
absl::StatusOr<std::unique_ptr<Ops>> OpenDevice(const DeviceOptions& options,
                                                ThreadPool& pool);

// The operators of training beside those of `ops`, which OpenDevice made of the
// same options. Both outlive them.
absl::StatusOr<std::unique_ptr<TrainOps>> OpenTrainOps(
    const DeviceOptions& options, Ops& ops, ThreadPool& pool);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_DEVICE_OPEN_DEVICE_H_
