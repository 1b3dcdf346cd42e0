#include "tests/cuda_on_host/emulated_backend.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace lorikeet::testing {
namespace {

std::string Environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

}  // namespace

std::string CudaOnHostPath(const std::string& build) {
  return absl::StrCat(
      Environment("LORIKEET_BINARY_DIR", "."), "/liblorikeet_cuda_on_host_",
      build.empty() ? Environment("LORIKEET_CUDA_ON_HOST_BUILD", "checked")
                    : build,
      ".so");
}

bool HasCudaOnHost(const std::string& path) {
  return access(path.c_str(), R_OK) == 0;
}

std::unique_ptr<Ops> OpenCudaOnHost(const std::string& path,
                                    const CudaOptions& options) {
  absl::StatusOr<std::unique_ptr<Ops>> ops = LoadCudaOps(path, options);
  if (!ops.ok()) std::fprintf(stderr, "%s\n", ops.status().ToString().c_str());
  CHECK(ops.ok());
  return *std::move(ops);
}

const cuda_on_host::Control& CudaOnHostControl(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  CHECK(library != nullptr);
  const auto control = reinterpret_cast<const cuda_on_host::Control* (*)()>(
      dlsym(library, cuda_on_host::kControlSymbol));
  CHECK(control != nullptr);
  return *control();
}

void ExpectNoFindings(const cuda_on_host::Control& control) {
  for (const cuda_on_host::Finding& f : control.take_findings()) {
    ADD_FAILURE() << f.kind << ": " << f.text << " (" << f.count << " times)";
  }
}

}  // namespace lorikeet::testing
