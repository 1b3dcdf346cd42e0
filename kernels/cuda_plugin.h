// Finds the CUDA backend, a library beside the program, and opens it.
//
// The program itself needs no CUDA: without the library, a driver or a GPU
// there is an error that says which, and the CPU serves. A library of another
// build is refused: the two share C++ classes. Once loaded it stays.
// Thread-compatible.

#ifndef LORIKEET_KERNELS_CUDA_PLUGIN_H_
#define LORIKEET_KERNELS_CUDA_PLUGIN_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace lorikeet {

inline constexpr char kCudaPluginFile[] = "liblorikeet_cuda.so";

// The path of `file` in the folder of the running program.
std::string BesideProgram(const std::string& file);

// Errors: FAILED_PRECONDITION if this machine has no NVIDIA driver. To be asked
// first: the library brings cuBLAS into memory, more than 100 MB that stay.
absl::Status CheckCudaDriver();

struct CudaOptions {
  // A row's bits do not depend on the batch: products are our own, slower than
  // cuBLAS.
  bool batch_invariant = false;
  // All the memory of the device that the backend may use; 0: nine tenths of
  // what is free.
  int64_t memory_bytes = 0;
  // Steps of one shape become one graph launch.
  bool graphs = true;
};

// Opens the library at `path` and starts its backend.
// Errors: NOT_FOUND if there is no such file; FAILED_PRECONDITION if it cannot
// be loaded (cuBLAS is missing), is of another build, or finds no GPU that will
// do; RESOURCE_EXHAUSTED; INTERNAL.
absl::StatusOr<std::unique_ptr<Ops>> LoadCudaOps(
    const std::string& path, const CudaOptions& options = {});

// ---- what the library exports ----

inline constexpr char kCudaPluginSymbol[] = "lorikeet_cuda_open";

struct CudaPluginResult {
  absl::Status status;
  std::unique_ptr<Ops> ops;
};

// Returns false, and does not touch `result`, if `abi` is not the library's own
// (CudaPluginAbi).
using CudaPluginOpen = bool (*)(const char* abi, const CudaOptions& options,
                                CudaPluginResult* result);

// What the two have to agree on: a digest of the headers that both compile.
const char* CudaPluginAbi();

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CUDA_PLUGIN_H_
