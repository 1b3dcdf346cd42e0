#include "kernels/cuda_plugin.h"

#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lorikeet {

const char* CudaPluginAbi() { return LORIKEET_OPS_ABI; }

std::string BesideProgram(const std::string& file) {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, size > 0 ? static_cast<size_t>(size) : 0);
  const size_t slash = program.rfind('/');
  return slash == std::string::npos ? file
                                    : program.substr(0, slash + 1) + file;
}

absl::Status CheckCudaDriver() {
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "no GPU: there is no NVIDIA driver on this machine (libcuda.so.1)");
}

absl::StatusOr<std::unique_ptr<Ops>> LoadCudaOps(const std::string& path,
                                                 const CudaOptions& options) {
  if (access(path.c_str(), R_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("there is no CUDA backend at ", path));
  }
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the CUDA backend cannot be loaded: ", dlerror()));
  }
  const auto open =
      reinterpret_cast<CudaPluginOpen>(dlsym(library, kCudaPluginSymbol));
  CudaPluginResult result;
  if (open == nullptr || !open(CudaPluginAbi(), options, &result)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the CUDA backend at ", path,
                     " is of another build, use the one that "
                     "came with this program"));
  }
  if (!result.status.ok()) return result.status;
  return std::move(result.ops);
}

}  // namespace lorikeet
