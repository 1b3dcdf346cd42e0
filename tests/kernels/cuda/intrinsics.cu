#include "tests/kernels/cuda/intrinsics.h"

#include <cstring>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

using Kernel = void (*)(const uint32_t* in, int count, uint32_t* out);

// ---- numbers: out[i] = f(in[i]) ---------------------------------------------

DEVICE float FloatAt(const uint32_t* in, int i) {
  return BitCast<float>(Load(in + i));
}
DEVICE void StoreFloat(uint32_t* out, int i, float value) {
  Store(out + i, BitCast<uint32_t>(value));
}

__global__ void ExpKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    StoreFloat(out, i, __expf(FloatAt(in, i)));
  }
}
__global__ void RsqrtKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    StoreFloat(out, i, rsqrtf(FloatAt(in, i)));
  }
}
// Pairs: in[2 i] / in[2 i + 1].
__global__ void DivideKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count / 2; i += blockDim.x) {
    StoreFloat(out, i, __fdividef(FloatAt(in, 2 * i), FloatAt(in, 2 * i + 1)));
  }
}
// Pairs: one rounding, subnormal numbers kept.
__global__ void FmaKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count / 2; i += blockDim.x) {
    StoreFloat(out, i, fmaf(FloatAt(in, 2 * i), FloatAt(in, 2 * i + 1), 1.0f));
    StoreFloat(out, count / 2 + i, FloatAt(in, 2 * i) * 0.5f);
  }
}
// Low half: rounded alone; high half: as the upper one of a pair.
__global__ void RoundKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const float x = FloatAt(in, i);
    __nv_bfloat16* const alone = reinterpret_cast<__nv_bfloat16*>(out + i);
    StoreF32(alone, x);
    Store(reinterpret_cast<uint16_t*>(out + i) + 1,
          static_cast<uint16_t>(PackBf16(0.0f, x) >> 16));
  }
}
// Each word is two bf16.
__global__ void WidenKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < 2 * count; i += blockDim.x) {
    StoreFloat(out, i, LoadF32(reinterpret_cast<const __nv_bfloat16*>(in) + i));
  }
}
__global__ void BitsKernel(const uint32_t* in, int count, uint32_t* out) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const uint32_t x = Load(in + i);
    Store(out + 4 * i, static_cast<uint32_t>(__popc(x)));
    Store(out + 4 * i + 1, static_cast<uint32_t>(__ffs(static_cast<int>(x))));
    Store(out + 4 * i + 2, static_cast<uint32_t>(__clz(static_cast<int>(x))));
    Store(out + 4 * i + 3, __umulhi(x, 0x9E3779B9u));
  }
}

// ---- memory -----------------------------------------------------------------

// The input again, by accesses of each size.
template <typename T>
DEVICE void CopyAs(const uint32_t* in, int count, uint32_t* out) {
  const int n = count * 4 / static_cast<int>(sizeof(T));
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    Store(reinterpret_cast<T*>(out) + i,
          Load(reinterpret_cast<const T*>(in) + i));
  }
}
__global__ void CopyKernel(const uint32_t* in, int count, uint32_t* out) {
  CopyAs<uint8_t>(in, count, out);
  CopyAs<uint16_t>(in, count, out + count);
  CopyAs<uint32_t>(in, count, out + 2 * count);
  CopyAs<uint2>(in, count, out + 3 * count);
  CopyAs<uint4>(in, count, out + 4 * count);
  for (int i = threadIdx.x; i < count / 4; i += blockDim.x) {
    StoreGlobal16(reinterpret_cast<uint4*>(out + 5 * count) + i,
                  LoadReadOnly(reinterpret_cast<const uint4*>(in) + i));
  }
}
// Each thread brings 16 bytes through shared memory; those of odd threads are
// not read, and are zeros.
__global__ void AsyncCopyKernel(const uint32_t* in, int, uint32_t* out) {
  SHARED_ARRAY(uint4, staged, 128);
  const int i = static_cast<int>(threadIdx.x);
  CpAsync16(staged + i, reinterpret_cast<const uint4*>(in) + i,
            i % 2 == 0 ? 16 : 0);
  CpAsyncCommit();
  CpAsyncWait<0>();
  __syncthreads();
  // Somebody else's.
  const int other = (i + 1) % static_cast<int>(blockDim.x);
  Store(reinterpret_cast<uint4*>(out) + other, staged[other]);
}
// All threads add 1, 2, 3, ... to one number.
__global__ void AtomicKernel(const uint32_t*, int, uint32_t* out) {
  if (threadIdx.x == 0) Store(out, 0u);
  __syncthreads();
  atomicAdd(out, threadIdx.x + 1);
  __threadfence();
}

// ---- warps and blocks -------------------------------------------------------

__global__ void ShuffleKernel(const uint32_t* in, int, uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const uint32_t x = Load(in + lane);
  Store(out + lane, __shfl_sync(kFullWarp, x, (lane * 7 + 3) % 32));
  Store(out + 32 + lane, __shfl_up_sync(kFullWarp, x, 3));
  Store(out + 64 + lane, __shfl_down_sync(kFullWarp, x, 5, 8));
  Store(out + 96 + lane, __shfl_xor_sync(kFullWarp, x, 9));
  Store(out + 128 + lane, __ballot_sync(kFullWarp, x % 3 == 0));
  Store(out + 160 + lane,
        static_cast<uint32_t>(__any_sync(kFullWarp, x == 1) != 0) +
            2 * static_cast<uint32_t>(__all_sync(kFullWarp, x != 1) != 0));
}
// f32: their sum and their largest, in every lane the same.
__global__ void ReduceKernel(const uint32_t* in, int, uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  StoreFloat(out, lane, WarpSum(FloatAt(in, lane)));
  StoreFloat(out, 32 + lane, WarpMax(FloatAt(in, lane)));
}
// Two halves of a block meet on their own, then all do.
__global__ void BarrierKernel(const uint32_t* in, int, uint32_t* out) {
  SHARED_ARRAY(uint32_t, value, 128);
  const int i = static_cast<int>(threadIdx.x);
  const int half = i / 64;
  value[i] = Load(in + i);
  NamedBarrier(1 + half, 64);
  Store(out + i, value[half * 64 + (i + 1) % 64]);
  Store(out + 128 + i, static_cast<uint32_t>(__syncthreads_count(value[i] % 2)));
  Store(out + 256 + i, static_cast<uint32_t>(__syncthreads_or(value[i] == 5)));
  Store(out + 384 + i, static_cast<uint32_t>(__syncthreads_and(value[i] != 5)));
}

// ---- tensor cores -----------------------------------------------------------

// 16 rows of 16 bf16, as ldmatrix gives them and transposed: 8 words a lane.
__global__ void MatrixKernel(const uint32_t* in, int, uint32_t* out) {
  SHARED_ARRAY(uint4, rows, 32);
  const int lane = static_cast<int>(threadIdx.x);
  rows[lane] = Load(reinterpret_cast<const uint4*>(in) + lane);
  __syncwarp();
  // Matrix m: rows m % 2 * 8, columns m / 2 * 8.
  const uint4* row =
      rows + ((lane / 8 % 2) * 8 + lane % 8) * 2 + lane / 16;
  uint32_t r[4];
  LdMatrixX4(r, row);
  for (int m = 0; m < 4; ++m) Store(out + lane * 8 + m, r[m]);
  LdMatrixX4Transposed(r, row);
  for (int m = 0; m < 4; ++m) Store(out + lane * 8 + 4 + m, r[m]);
}
// in: A [16, 16] bf16, then B [8, 16] (its columns), then C [16, 8] f32.
__global__ void MmaKernel(const uint32_t* in, int, uint32_t* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const int g = lane / 4, t = lane % 4;
  const uint32_t *const b = in + 128, *const c = in + 192;
  const uint32_t a[4] = {Load(in + g * 8 + t), Load(in + (g + 8) * 8 + t),
                         Load(in + g * 8 + t + 4),
                         Load(in + (g + 8) * 8 + t + 4)};
  float d[4] = {FloatAt(c, g * 8 + 2 * t), FloatAt(c, g * 8 + 2 * t + 1),
                FloatAt(c, (g + 8) * 8 + 2 * t),
                FloatAt(c, (g + 8) * 8 + 2 * t + 1)};
  MmaM16N8K16(d, a, Load(b + g * 8 + t), Load(b + g * 8 + t + 4));
  StoreFloat(out, g * 8 + 2 * t, d[0]);
  StoreFloat(out, g * 8 + 2 * t + 1, d[1]);
  StoreFloat(out, (g + 8) * 8 + 2 * t, d[2]);
  StoreFloat(out, (g + 8) * 8 + 2 * t + 1, d[3]);
}

struct Entry {
  const char* name;
  Kernel kernel;
};
const Entry kKernels[] = {
    {"exp", ExpKernel},         {"rsqrt", RsqrtKernel},
    {"divide", DivideKernel},   {"fma", FmaKernel},
    {"round", RoundKernel},     {"widen", WidenKernel},
    {"bits", BitsKernel},       {"copy", CopyKernel},
    {"async", AsyncCopyKernel}, {"atomic", AtomicKernel},
    {"shuffle", ShuffleKernel}, {"reduce", ReduceKernel},
    {"barrier", BarrierKernel}, {"matrix", MatrixKernel},
    {"mma", MmaKernel},
};

Kernel Find(const char* name) {
  for (const Entry& entry : kKernels) {
    if (std::strcmp(entry.name, name) == 0) return entry.kernel;
  }
  return nullptr;
}

// What a call needs on the device.
struct Words {
  explicit Words(size_t n) : count(n) {
    error = cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(uint32_t));
  }
  ~Words() { cudaFree(data); }
  size_t bytes() const { return count * sizeof(uint32_t); }
  size_t count;
  uint32_t* data = nullptr;
  cudaError_t error;
};

}  // namespace
}  // namespace lorikeet::cuda

extern "C" __attribute__((visibility("default"))) int lorikeet_run_intrinsic(
    const char* name, int threads, const uint32_t* in, size_t count,
    uint32_t* out, size_t out_count) {
  using namespace lorikeet::cuda;  // NOLINT: this is its interface
  const Kernel kernel = Find(name);
  if (kernel == nullptr) return -1;
  const Words from(count), to(out_count);
  if (from.error != cudaSuccess) return from.error;
  if (to.error != cudaSuccess) return to.error;
  cudaError_t error =
      cudaMemcpy(from.data, in, from.bytes(), cudaMemcpyHostToDevice);
  if (error != cudaSuccess) return error;
  error = Launch(kernel, {dim3(1), dim3(static_cast<unsigned>(threads))},
                 static_cast<const uint32_t*>(from.data),
                 static_cast<int>(count), to.data);
  if (error != cudaSuccess) return error;
  return cudaMemcpy(out, to.data, to.bytes(), cudaMemcpyDeviceToHost);
}
