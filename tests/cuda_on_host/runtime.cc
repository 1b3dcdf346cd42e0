// The rest of the runtime's interface: launches, memory, copies, the device.
// The same symbols and signatures as libcudart's.

#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "tests/cuda_on_host/checker.h"
#include "tests/cuda_on_host/counters.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/launch_call.h"
#include "tests/cuda_on_host/scheduler.h"
#include "tests/cuda_on_host/stream_order.h"
#include "tests/cuda_on_host/streams.h"

namespace cuda_on_host {
namespace {

constexpr size_t kDefaultDynamicShared = 48 << 10;
constexpr int kMaxDynamicShared = 227 << 10;
constexpr unsigned kMaxGridYZ = 65535;
constexpr uint64_t kMaxThreads = 1024;

std::map<const void*, size_t>& DynamicSharedLimits() {
  static auto* const limits = new std::map<const void*, size_t>();
  return *limits;
}

size_t DynamicSharedLimit(const void* function) {
  const auto it = DynamicSharedLimits().find(function);
  return it == DynamicSharedLimits().end() ? kDefaultDynamicShared : it->second;
}

bool IsValid(const dim3& grid, const dim3& block) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  return threads > 0 && threads <= kMaxThreads && block.z <= 64 && grid.x > 0 &&
         grid.y > 0 && grid.z > 0 && grid.x < 1u << 31 &&
         grid.y <= kMaxGridYZ && grid.z <= kMaxGridYZ;
}

void Copy(void* to, const void* from, size_t n) {
  NewOperationId();
  OnStreamAccess(from, n, false, "the source of a copy");
  OnStreamAccess(to, n, true, "the target of a copy");
  std::memmove(to, from, n);
}

// A fault that a test has ordered.
bool IsFaultDue() {
  int64_t& left = options().fault_after_launches;
  if (left < 0) return false;
  return left-- == 0;
}

}  // namespace

cudaError_t LaunchCall(dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t stream, const void* function,
                       std::shared_ptr<const void> params, size_t bytes,
                       void (*invoke)(const void*)) {
  const ApiLock lock;
  if (!IsValid(grid, block)) return Fail(cudaErrorInvalidConfiguration);
  if (shared_bytes > DynamicSharedLimit(function)) {
    return Fail(cudaErrorInvalidValue);
  }
  return Enqueue(stream, [=] {
    if (IsFaultDue()) return SetStickyError(cudaErrorIllegalAddress);
    Kernel kernel;
    kernel.grid = grid;
    kernel.block = block;
    kernel.shared_bytes = shared_bytes;
    kernel.function = function;
    kernel.invoke = invoke;
    kernel.params = params.get();
    kernel.param_bytes = bytes;
    kernel.launch_id = NewOperationId();
    kernel.counters = CountersOf(function);
    RunKernel(kernel);
  });
}

}  // namespace cuda_on_host

using namespace cuda_on_host;  // NOLINT: what follows is their C interface

#define CUDA_API extern "C" cudaError_t CUDARTAPI

CUDA_API cudaMalloc(void** p, size_t n) {
  const ApiLock lock;
  if (IsForbiddenInCapture("cudaMalloc")) {
    return Fail(cudaErrorStreamCaptureUnsupported);
  }
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  *p = n == 0 ? nullptr : AllocateDevice(n);
  if (n != 0 && *p == nullptr) return Fail(cudaErrorMemoryAllocation);
  return cudaSuccess;
}
CUDA_API cudaFree(void* p) {
  const ApiLock lock;
  if (p == nullptr) return cudaSuccess;
  if (IsForbiddenInCapture("cudaFree")) {
    return Fail(cudaErrorStreamCaptureUnsupported);
  }
  SynchronizeAll();
  return FreeDevice(p) ? cudaSuccess : Fail(cudaErrorInvalidValue);
}
// A pool is memory like other memory; what it gives and takes is in the order
// of a stream.
CUDA_API cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* p) {
  if (p->allocType != cudaMemAllocationTypePinned ||
      p->location.type != cudaMemLocationTypeDevice) {
    const ApiLock lock;
    return Fail(cudaErrorInvalidValue);
  }
  *pool = reinterpret_cast<cudaMemPool_t>(new char);
  return cudaSuccess;
}
CUDA_API cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete reinterpret_cast<char*>(pool);
  return cudaSuccess;
}
CUDA_API cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
CUDA_API cudaMallocFromPoolAsync(void** p, size_t n, cudaMemPool_t,
                                 cudaStream_t) {
  const ApiLock lock;
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  *p = AllocateDevice(n);
  return *p == nullptr ? Fail(cudaErrorMemoryAllocation) : cudaSuccess;
}
CUDA_API cudaFreeAsync(void* p, cudaStream_t stream) {
  const ApiLock lock;
  if (p == nullptr) return cudaSuccess;
  return Enqueue(stream, [p] {
    if (!FreeDevice(p)) SetStickyError(cudaErrorInvalidValue);
  });
}
CUDA_API cudaHostAlloc(void** p, size_t n, unsigned) {
  const ApiLock lock;
  *p = std::aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  RegisterPinned(*p, n);
  return cudaSuccess;
}
CUDA_API cudaFreeHost(void* p) {
  const ApiLock lock;
  UnregisterPinned(p);
  std::free(p);
  return cudaSuccess;
}
CUDA_API cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  const ApiLock lock;
  *total = static_cast<size_t>(options().memory_bytes);
  *free_bytes = *total - static_cast<size_t>(AllocatedBytes());
  return cudaSuccess;
}

CUDA_API cudaMemcpyAsync(void* to, const void* from, size_t n,
                         cudaMemcpyKind kind, cudaStream_t stream) {
  const ApiLock lock;
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  const bool to_device = IsDevicePointer(to);
  const bool from_device = IsDevicePointer(from);
  const bool fits =
      (kind == cudaMemcpyHostToDevice && to_device && !from_device) ||
      (kind == cudaMemcpyDeviceToHost && !to_device && from_device) ||
      (kind == cudaMemcpyDeviceToDevice && to_device && from_device) ||
      kind == cudaMemcpyDefault;
  if (!fits) {
    ReportFinding("memcpy", "the kind of a copy does not fit its pointers",
                  "kind");
    return Fail(cudaErrorInvalidValue);
  }
  const bool pageable_from = !from_device && !IsPinned(from);
  const bool pageable_to = !to_device && !IsPinned(to);
  if (IsCapturing(stream) && (pageable_from || pageable_to)) {
    ReportFinding("graph capture", "a copy of pageable memory is captured",
                  "pageable");
  }
  if (pageable_from) {  // the driver takes a copy before it returns
    const auto staged = std::make_shared<std::vector<char>>(
        static_cast<const char*>(from), static_cast<const char*>(from) + n);
    return Enqueue(stream, [=] { Copy(to, staged->data(), n); });
  }
  // Who reads the result before it waited gets NaN.
  if (!to_device && options().streams == Options::Streams::kRandom &&
      !IsCapturing(stream)) {
    std::memset(to, 0xFF, n);
  }
  return Enqueue(stream, [=] { Copy(to, from, n); });
}
CUDA_API cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  const ApiLock lock;
  if (IsForbiddenInCapture("cudaMemcpy")) {
    return Fail(cudaErrorStreamCaptureUnsupported);
  }
  const cudaError_t error = cudaMemcpyAsync(to, from, n, kind, nullptr);
  return error != cudaSuccess ? error : SynchronizeAll();
}
CUDA_API cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t stream) {
  const ApiLock lock;
  return Enqueue(stream, [=] {
    NewOperationId();
    OnStreamAccess(p, n, true, "the target of a memset");
    std::memset(p, value, n);
  });
}

CUDA_API cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute,
                              int value) {
  const ApiLock lock;
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value > kMaxDynamicShared) return Fail(cudaErrorInvalidValue);
    DynamicSharedLimits()[function] = static_cast<size_t>(value);
  }
  return cudaSuccess;
}

CUDA_API cudaGetDeviceCount(int* n) {
  const ApiLock lock;
  *n = options().device_count;
  return *n > 0 ? cudaSuccess : Fail(cudaErrorNoDevice);
}
CUDA_API cudaSetDevice(int device) {
  const ApiLock lock;
  return device < options().device_count ? cudaSuccess
                                         : Fail(cudaErrorInvalidDevice);
}
CUDA_API cudaDriverGetVersion(int* version) {
  const ApiLock lock;
  *version = 13000;
  return cudaSuccess;
}
CUDA_API cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const ApiLock lock;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = options().compute_capability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = options().compute_capability % 10;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 132;
      return cudaSuccess;
    default:
      return Fail(cudaErrorInvalidValue);
  }
}
extern "C" const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorMisalignedAddress:
      return "misaligned address";
    case cudaErrorLaunchTimeout:
      return "the launch timed out and was terminated";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    default:
      return "an error of the emulated device";
  }
}
