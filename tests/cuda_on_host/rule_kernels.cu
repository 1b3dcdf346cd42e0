#include "tests/cuda_on_host/rule_kernels.h"

#include <cublasLt.h>

#include <cstring>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "tests/cuda_on_host/options.h"

namespace cuda_on_host {
namespace {

using lorikeet::cuda::kFullWarp;
using lorikeet::cuda::Launch;

// Device and pinned memory, two streams; all gone at the end of a rule.
struct Rig {
  static constexpr int kCount = 256;
  float *x = nullptr, *y = nullptr, *pinned = nullptr;
  cudaStream_t a = nullptr, b = nullptr;
  cudaEvent_t event = nullptr;

  Rig() {
    cudaMalloc(reinterpret_cast<void**>(&x), kCount * 4);
    cudaMalloc(reinterpret_cast<void**>(&y), kCount * 4);
    cudaHostAlloc(reinterpret_cast<void**>(&pinned), kCount * 4, 0);
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    for (int i = 0; i < kCount; ++i) pinned[i] = static_cast<float>(i);
    cudaMemcpyAsync(x, pinned, kCount * 4, cudaMemcpyHostToDevice, a);
    cudaMemsetAsync(y, 0, kCount * 4, a);
    cudaStreamSynchronize(a);
  }
  ~Rig() {
    ResetDevice();
    cudaStreamDestroy(a);
    cudaStreamDestroy(b);
    cudaEventDestroy(event);
    cudaFree(x);
    cudaFree(y);
    cudaFreeHost(pinned);
  }
  bool Done() { return cudaStreamSynchronize(a) == cudaSuccess; }
};

// Launches `kernel(is_faulty, x, y)` on one or more blocks.
template <typename Kernel>
bool Run(Kernel kernel, bool is_faulty, int threads, int blocks = 1) {
  Rig rig;
  Launch(kernel, {dim3(blocks), dim3(threads), 0, rig.a}, is_faulty, rig.x,
         rig.y);
  return rig.Done();
}

__global__ void BarrierKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float, s, 64);
  s[threadIdx.x] = x[threadIdx.x];
  if (!is_faulty) __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void SyncwarpKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float, s, 32);
  s[threadIdx.x] = x[threadIdx.x];
  if (!is_faulty) __syncwarp();
  __shfl_xor_sync(kFullWarp, 1, 1);  // a shuffle is no fence
  y[threadIdx.x] = s[31 - threadIdx.x];
}
__global__ void OneWriterKernel(bool is_faulty, const float*, float* y) {
  if (is_faulty || threadIdx.x == 0) y[0] = 1;
}
__global__ void TwoBarriersKernel(bool is_faulty, const float*, float*) {
  if (is_faulty && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void OneBarrierKernel(bool is_faulty, const float* x, float* y) {
  if (is_faulty) {
    TwoBarriersKernel(true, x, y);
  } else {
    __syncthreads();
  }
}
__global__ void MaskKernel(bool is_faulty, const float*, float* y) {
  y[threadIdx.x] =
      __shfl_xor_sync(is_faulty ? 0x0000ffffu : kFullWarp, 1.0f, 1);
}
__global__ void MaskSourceKernel(bool is_faulty, const float*, float* y) {
  if (threadIdx.x >= 16) return;
  y[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, is_faulty ? 20 : 3);
}
__global__ void DivergentKernel(bool is_faulty, const float*, float* y) {
  float v = 1;
  if (!is_faulty || threadIdx.x < 16) v = __shfl_xor_sync(kFullWarp, v, 1);
  y[threadIdx.x] = v;
}
__global__ void DeadlockKernel(bool is_faulty, const float*, float* y) {
  if (is_faulty && threadIdx.x < 16) {
    __syncthreads();
  } else {
    y[threadIdx.x] = __shfl_xor_sync(kFullWarp, 1.0f, 1);
    __syncthreads();
  }
}
__global__ void GlobalBoundsKernel(bool is_faulty, const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x + (is_faulty ? 256 : 0)];
}
__global__ void SharedBoundsKernel(bool is_faulty, const float*, float* y) {
  SHARED_ARRAY(float, s, 32);
  s[threadIdx.x + (is_faulty ? 1 : 0)] = 1;
  y[threadIdx.x] = 0;
}
__global__ void AlignmentKernel(bool is_faulty, const float* x, float* y) {
  const float4 v = Load(reinterpret_cast<const float4*>(x + 4 * threadIdx.x +
                                                        (is_faulty ? 1 : 0)));
  y[threadIdx.x] = v.x;
}
__global__ void SharedInitialKernel(bool is_faulty, const float*, float* y) {
  SHARED_ARRAY(float, s, 32);
  if (!is_faulty || threadIdx.x != 7) s[threadIdx.x] = 1;
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void CopyWaitKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float4, s, 32);
  CpAsync16(s + threadIdx.x, x + 4 * threadIdx.x);
  CpAsyncCommit();
  if (!is_faulty) CpAsyncWait<0>();
  y[threadIdx.x] = s[threadIdx.x].x;
  CpAsyncWait<0>();
}
__global__ void CopyGroupKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float4, s, 64);
  CpAsync16(s + threadIdx.x, x + 4 * threadIdx.x);
  CpAsyncCommit();
  CpAsync16(s + 32 + threadIdx.x, x + 4 * threadIdx.x);
  CpAsyncCommit();
  if (is_faulty) {
    CpAsyncWait<1>();
  } else {
    CpAsyncWait<0>();
  }
  y[threadIdx.x] = s[32 + threadIdx.x].x;
  CpAsyncWait<0>();
}
__global__ void CopyBarrierKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float4, s, 32);
  CpAsync16(s + threadIdx.x, x + 4 * threadIdx.x);
  CpAsyncCommit();
  CpAsyncWait<0>();
  if (!is_faulty) __syncthreads();
  y[threadIdx.x] = s[31 - threadIdx.x].x;
}
__global__ void CopyCommitKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float4, s, 32);
  CpAsync16(s + threadIdx.x, x + 4 * threadIdx.x);
  if (!is_faulty) CpAsyncCommit();
  CpAsyncWait<0>();
  y[threadIdx.x] = 0;
}
__global__ void ReadOnlyKernel(bool is_faulty, const float*, float* y) {
  const float v =
      is_faulty ? LoadReadOnly(y + threadIdx.x) : Load(y + threadIdx.x);
  Store(y + threadIdx.x, v + 1);
}
__global__ void BlocksKernel(bool is_faulty, const float*, float* y) {
  if (threadIdx.x == 0) Store(y + (is_faulty ? 0 : blockIdx.x), 1.0f);
}
// The last block to come adds what all have stored.
__global__ void LastBlockKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(int, is_last, 1);
  unsigned* const counter = reinterpret_cast<unsigned*>(y);
  if (threadIdx.x == 0) {
    Store(y + 1 + blockIdx.x, x[blockIdx.x]);
    if (!is_faulty) __threadfence();
    is_last[0] = atomicAdd(counter, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last[0] || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += Load(y + 1 + i);
  Store(y + 100, sum);
}
__global__ void LocalKernel(bool is_faulty, const float*, float* y) {
  SHARED_ARRAY(float*, pointer, 1);
  float mine = 1;
  if (threadIdx.x == 0) pointer[0] = &mine;
  __syncthreads();
  y[threadIdx.x] = is_faulty ? *pointer[0] : mine;
}
__global__ void HostPointerKernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}
__global__ void MatrixKernel(bool is_faulty, const float*, float* y) {
  SHARED_ARRAY(uint4, s, 32);
  s[threadIdx.x] = make_uint4(0, 0, 0, 0);
  __syncwarp();
  uint32_t r[4];
  LdMatrixX4(
      r, reinterpret_cast<const char*>(s + threadIdx.x) + (is_faulty ? 4 : 0));
  y[threadIdx.x] = static_cast<float>(r[0]);
}
__global__ void MatrixSyncKernel(bool is_faulty, const float*, float* y) {
  SHARED_ARRAY(uint4, s, 32);
  s[threadIdx.x] = make_uint4(0, 0, 0, 0);
  if (!is_faulty) __syncwarp();
  uint32_t r[4];
  LdMatrixX4(r, s + (31 - threadIdx.x));
  y[threadIdx.x] = static_cast<float>(r[0]);
}
__global__ void NamedBarrierKernel(bool is_faulty, const float* x, float* y) {
  SHARED_ARRAY(float, s, 128);
  if (threadIdx.x >= 64) return;  // the barrier is of two warps of four
  s[threadIdx.x] = x[threadIdx.x];
  NamedBarrier(1, is_faulty && threadIdx.x >= 32 ? 32 : 64);
  y[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void AddKernel(const float* x, float* y) {
  Store(y + threadIdx.x, Load(y + threadIdx.x) + LoadReadOnly(x + threadIdx.x));
}
template <int>
__global__ void LargeSharedKernel(float* y) {
  y[threadIdx.x] = 1;
}

template <auto kKernel, int kThreads, int kBlocks = 1>
bool RunOne(bool is_faulty) {
  return Run(kKernel, is_faulty, kThreads, kBlocks);
}

void Add(const float* x, float* y, cudaStream_t stream) {
  Launch(AddKernel, {dim3(1), dim3(Rig::kCount), 0, stream}, x, y);
}

bool UnwrittenMemory(bool is_faulty) {
  Rig rig;
  float* fresh = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&fresh), Rig::kCount * 4);
  if (!is_faulty) {
    cudaMemsetAsync(fresh, 0, Rig::kCount * 4, rig.a);
    rig.Done();
  }
  Add(fresh, rig.y, rig.a);
  const bool good = rig.Done();
  cudaFree(fresh);
  return good;
}
bool UseAfterFree(bool is_faulty) {
  Rig rig;
  float* gone = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&gone), Rig::kCount * 4);
  cudaMemsetAsync(gone, 0, Rig::kCount * 4, rig.a);
  rig.Done();
  if (is_faulty) cudaFree(gone);
  Add(gone, rig.y, rig.a);
  const bool good = rig.Done();
  if (!is_faulty) cudaFree(gone);
  return good;
}
bool HostPointer(bool is_faulty) {
  Rig rig;
  std::vector<float> mine(32);
  Launch(HostPointerKernel, {dim3(1), dim3(32), 0, rig.a},
         is_faulty ? mine.data() : rig.x, rig.y);
  return rig.Done();
}
bool HostAccess(bool is_faulty) {
  Rig rig;
  volatile const float* const p = is_faulty ? rig.x : rig.pinned;
  return *p == 0;
}
bool EventWait(bool is_faulty) {
  Rig rig;
  cudaMemcpyAsync(rig.x, rig.pinned, Rig::kCount * 4, cudaMemcpyHostToDevice,
                  rig.b);
  cudaEventRecord(rig.event, rig.b);
  if (!is_faulty) cudaStreamWaitEvent(rig.a, rig.event, 0);
  Add(rig.x, rig.y, rig.a);
  const bool good = rig.Done();
  cudaStreamSynchronize(rig.b);
  return good;
}
bool OverwrittenEarly(bool is_faulty) {
  Rig rig;
  Add(rig.x, rig.y, rig.a);
  cudaEventRecord(rig.event, rig.a);
  if (!is_faulty) cudaStreamWaitEvent(rig.b, rig.event, 0);
  cudaMemsetAsync(rig.x, 0, Rig::kCount * 4, rig.b);
  const bool good = rig.Done();
  cudaStreamSynchronize(rig.b);
  return good;
}
bool PinnedReused(bool is_faulty) {
  Rig rig;
  cudaMemcpyAsync(rig.x, rig.pinned, Rig::kCount * 4, cudaMemcpyHostToDevice,
                  rig.a);
  if (!is_faulty) rig.Done();
  std::memset(rig.pinned, 0, Rig::kCount * 4);
  cudaMemcpyAsync(rig.pinned, rig.x, Rig::kCount * 4, cudaMemcpyDeviceToHost,
                  rig.a);
  rig.Done();
  return rig.pinned[7] == 7;
}
bool ResultReadEarly(bool is_faulty) {
  Rig rig;
  Add(rig.x, rig.y, rig.a);
  cudaMemcpyAsync(rig.pinned, rig.y, Rig::kCount * 4, cudaMemcpyDeviceToHost,
                  rig.a);
  if (!is_faulty) rig.Done();
  const bool good = rig.pinned[7] == 7;
  rig.Done();
  return good;
}
bool UnjoinedFork(bool is_faulty) {
  Rig rig;
  cudaEvent_t join = nullptr;
  cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
  cudaStreamBeginCapture(rig.a, cudaStreamCaptureModeThreadLocal);
  cudaEventRecord(rig.event, rig.a);
  cudaStreamWaitEvent(rig.b, rig.event, 0);
  Add(rig.x, rig.y, rig.b);
  cudaEventRecord(join, rig.b);
  if (!is_faulty) cudaStreamWaitEvent(rig.a, join, 0);
  cudaGraph_t graph = nullptr;
  const bool good = cudaStreamEndCapture(rig.a, &graph) == cudaSuccess;
  cudaGraphDestroy(graph);
  cudaEventDestroy(join);
  return good;
}
bool SynchroniseInCapture(bool is_faulty) {
  Rig rig;
  cudaStreamBeginCapture(rig.a, cudaStreamCaptureModeThreadLocal);
  Add(rig.x, rig.y, rig.a);
  if (is_faulty) cudaStreamSynchronize(rig.a);
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(rig.a, &graph);
  cudaGraphDestroy(graph);
  return true;
}
bool PageableInCapture(bool is_faulty) {
  Rig rig;
  std::vector<float> pageable(Rig::kCount);
  cudaStreamBeginCapture(rig.a, cudaStreamCaptureModeThreadLocal);
  cudaMemcpyAsync(rig.x, is_faulty ? pageable.data() : rig.pinned,
                  Rig::kCount * 4, cudaMemcpyHostToDevice, rig.a);
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(rig.a, &graph);
  cudaGraphDestroy(graph);
  return true;
}
bool LargeShared(bool is_faulty) {
  Rig rig;
  const auto kernel = is_faulty ? LargeSharedKernel<0> : LargeSharedKernel<1>;
  if (!is_faulty) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                         cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
  }
  return Launch(kernel, {dim3(1), dim3(32), 64 << 10, rig.a}, rig.y) ==
             cudaSuccess &&
         rig.Done();
}
bool MatmulAlignment(bool is_faulty) {
  Rig rig;
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t description;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA,
                                 &transposed, sizeof transposed);
  cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, 8, 4, 8);
  cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, 8, 4, is_faulty ? 9 : 8);
  cublasLtMatrixLayoutCreate(&d, CUDA_R_32F, 4, 4, 4);
  const cublasLtMatmulAlgo_t algo = {};
  const float one = 1, zero = 0;
  const cublasStatus_t status =
      cublasLtMatmul(handle, description, &one, rig.x, a, rig.x, b, &zero,
                     rig.y, d, rig.y, d, &algo, nullptr, 0, rig.a);
  const bool good = status == CUBLAS_STATUS_SUCCESS && rig.Done();
  cublasLtMatrixLayoutDestroy(a);
  cublasLtMatrixLayoutDestroy(b);
  cublasLtMatrixLayoutDestroy(d);
  cublasLtMatmulDescDestroy(description);
  cublasLtDestroy(handle);
  return good;
}

__global__ void MmaKernel(const float* a, const float* b, float c, float* d) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
  const auto pack = [](const float* p, int stride) {
    return lorikeet::cuda::PackBf16(p[0], p[stride]);
  };
  const uint32_t words[4] = {
      pack(a + g * 16 + t, 1), pack(a + (g + 8) * 16 + t, 1),
      pack(a + g * 16 + t + 8, 1), pack(a + (g + 8) * 16 + t + 8, 1)};
  float sums[4] = {c, c, c, c};
  MmaM16N8K16(sums, words, pack(b + t * 8 + g, 8),
              pack(b + (t + 8) * 8 + g, 8));
  d[g * 8 + t] = sums[0];
  d[g * 8 + t + 1] = sums[1];
  d[(g + 8) * 8 + t] = sums[2];
  d[(g + 8) * 8 + t + 1] = sums[3];
}
__global__ void ShuffleKernel(int* out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(kFullWarp, lane, lane + 3, 8);
  out[32 + lane] = __shfl_up_sync(kFullWarp, lane, 3, 8);
  out[64 + lane] = __shfl_down_sync(kFullWarp, lane, 3, 8);
  out[96 + lane] = __shfl_xor_sync(kFullWarp, lane, 5, 8);
}
__global__ void TransposedLoadKernel(int* out) {
  SHARED_ARRAY(uint4, rows, 32);
  uint16_t* const elements = reinterpret_cast<uint16_t*>(rows);
  for (int i = 0; i < 8; ++i) {
    elements[threadIdx.x * 8 + i] = static_cast<uint16_t>(threadIdx.x * 8 + i);
  }
  __syncwarp();
  uint32_t r[4];
  LdMatrixX4Transposed(r, rows + threadIdx.x);
  for (int m = 0; m < 4; ++m) {
    out[(threadIdx.x * 4 + m) * 2] = static_cast<int>(r[m] & 0xffff);
    out[(threadIdx.x * 4 + m) * 2 + 1] = static_cast<int>(r[m] >> 16);
  }
}

// Runs `launch(device pointer)` and gives back `count` values.
template <typename T, typename LaunchIt>
std::vector<T> Collect(size_t count, const LaunchIt& launch) {
  T* out = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&out), count * sizeof(T));
  launch(out);
  std::vector<T> values(count);
  cudaMemcpy(values.data(), out, count * sizeof(T), cudaMemcpyDeviceToHost);
  cudaFree(out);
  return values;
}

}  // namespace

const std::vector<Rule>& Rules() {
  static const auto* const rules = new std::vector<Rule>{
      {"barrier between write and read", "race", RunOne<BarrierKernel, 64>},
      {"syncwarp between write and read", "race", RunOne<SyncwarpKernel, 32>},
      {"one writer of a place", "race", RunOne<OneWriterKernel, 32>},
      {"one barrier for a block", "barrier divergence",
       RunOne<OneBarrierKernel, 64>},
      {"a lane is in its mask", "warp mask", RunOne<MaskKernel, 32>},
      {"a shuffle reads lanes of its mask", "warp mask",
       RunOne<MaskSourceKernel, 32>},
      {"all lanes of a mask come", "warp mask", RunOne<DivergentKernel, 32>},
      {"all come to a barrier", "deadlock", RunOne<DeadlockKernel, 32>},
      {"global bounds", "out of bounds", RunOne<GlobalBoundsKernel, 32>},
      {"shared bounds", "out of bounds", RunOne<SharedBoundsKernel, 32>},
      {"alignment", "misaligned", RunOne<AlignmentKernel, 32>},
      {"shared memory is written first", "uninitialised",
       RunOne<SharedInitialKernel, 32>},
      {"global memory is written first", "uninitialised", UnwrittenMemory},
      {"cp.async is waited for", "cp.async", RunOne<CopyWaitKernel, 32>},
      {"the right group is waited for", "cp.async",
       RunOne<CopyGroupKernel, 32>},
      {"a barrier after the wait", "race", RunOne<CopyBarrierKernel, 32>},
      {"cp.async is committed", "cp.async", RunOne<CopyCommitKernel, 32>},
      {"read-only memory is only read", "read-only load",
       RunOne<ReadOnlyKernel, 32>},
      {"blocks write places of their own", "race", RunOne<BlocksKernel, 32, 3>},
      {"a fence before the atomic", "race", RunOne<LastBlockKernel, 32, 3>},
      {"local variables are local", "local memory", RunOne<LocalKernel, 32>},
      {"a kernel has no host pointers", "host pointer", HostPointer},
      {"the host has no device pointers", "host access", HostAccess},
      {"ldmatrix rows are aligned", "misaligned", RunOne<MatrixKernel, 32>},
      {"ldmatrix is no fence", "race", RunOne<MatrixSyncKernel, 32>},
      {"a named barrier has one count", "barrier divergence|race",
       RunOne<NamedBarrierKernel, 128>},
      {"freed memory is not used", "out of bounds", UseAfterFree},
      {"a stream waits for another's copy", "race", EventWait},
      {"memory is overwritten after its reader", "race", OverwrittenEarly},
      {"pinned memory is reused after the copy", "", PinnedReused, true},
      {"a result is read after the wait", "", ResultReadEarly, true},
      {"a fork is joined", "graph capture", UnjoinedFork},
      {"no synchronisation in a capture", "graph capture",
       SynchroniseInCapture},
      {"no pageable copy in a capture", "graph capture", PageableInCapture},
      {"more than 48 KiB must be asked for", "", LargeShared},
      {"matmul rows are aligned", "", MatmulAlignment},
  };
  return *rules;
}

std::vector<float> RunMma(const std::vector<float>& a,
                          const std::vector<float>& b, float c) {
  float *da = nullptr, *db = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&da), a.size() * 4);
  cudaMalloc(reinterpret_cast<void**>(&db), b.size() * 4);
  cudaMemcpy(da, a.data(), a.size() * 4, cudaMemcpyHostToDevice);
  cudaMemcpy(db, b.data(), b.size() * 4, cudaMemcpyHostToDevice);
  const std::vector<float> d = Collect<float>(16 * 8, [&](float* out) {
    Launch(MmaKernel, {dim3(1), dim3(32)}, da, db, c, out);
  });
  cudaFree(da);
  cudaFree(db);
  return d;
}

std::vector<int> RunShuffles() {
  return Collect<int>(128, [](int* out) {
    Launch(ShuffleKernel, {dim3(1), dim3(32)}, out);
  });
}

std::vector<int> RunTransposedLoad() {
  return Collect<int>(256, [](int* out) {
    Launch(TransposedLoadKernel, {dim3(1), dim3(32)}, out);
  });
}

}  // namespace cuda_on_host
