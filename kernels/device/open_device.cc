#include "kernels/device/open_device.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/train/train_ops.h"

namespace lorikeet {
namespace {

CpuOptions CpuOptionsOf(const DeviceOptions& options) {
  CpuOptions cpu;
  const char* const simd = std::getenv("LORIKEET_SIMD");
  if (simd != nullptr) cpu.target = simd;
  cpu.compute_dtype = options.compute_dtype;
  return cpu;
}

absl::StatusOr<std::unique_ptr<Ops>> OpenCpu(const DeviceOptions& options,
                                             ThreadPool& pool) {
  auto ops = CreateCpuOps(pool, CpuOptionsOf(options));
  if (absl::IsInvalidArgument(ops.status())) {
    return Annotate(ops.status(), "LORIKEET_SIMD");
  }
  return ops;
}

std::string CudaOnHostPath() {
  const char* const build = std::getenv("LORIKEET_CUDA_ON_HOST_BUILD");
  return BesideProgram(absl::StrCat("liblorikeet_cuda_on_host_",
                                    build == nullptr ? "checked" : build,
                                    ".so"));
}

absl::StatusOr<std::unique_ptr<Ops>> OpenCuda(const DeviceOptions& options) {
  if (options.int8_weights) {
    return absl::InvalidArgumentError(
        "--dtype int8: the CUDA backend has bf16 weights only, use --dtype "
        "bf16 or --device cpu");
  }
  if (options.device == "cuda-on-host") {
    return LoadCudaOps(CudaOnHostPath(), options.cuda);
  }
  RETURN_IF_ERROR(CheckCudaDriver());
  return LoadCudaOps(BesideProgram(kCudaPluginFile), options.cuda);
}

}  // namespace

std::vector<std::string> DeviceNames() {
  std::vector<std::string> names = {"auto", "cpu", "cuda"};
#if defined(LORIKEET_CUDA_ON_HOST)
  names.push_back("cuda-on-host");
#endif
  return names;
}

absl::StatusOr<std::unique_ptr<Ops>> OpenDevice(const DeviceOptions& options,
                                                ThreadPool& pool) {
  if (options.device == "cpu") return OpenCpu(options, pool);
  absl::StatusOr<std::unique_ptr<Ops>> ops = OpenCuda(options);
  if (ops.ok()) return ops;
  if (options.device != "auto") {
    return Annotate(ops.status(), absl::StrCat("--device ", options.device));
  }
  Log(LogLevel::kInfo, "no CUDA, using the CPU",
      {{"why", std::string(ops.status().message())}});
  return OpenCpu(options, pool);
}

absl::StatusOr<std::unique_ptr<TrainOps>> OpenTrainOps(
    const DeviceOptions& options, Ops& ops, ThreadPool& pool) {
  if (!ops.is_on_host()) return ops.NewTrainOps();
  return CreateCpuTrainOps(pool, CpuOptionsOf(options));
}

}  // namespace lorikeet
