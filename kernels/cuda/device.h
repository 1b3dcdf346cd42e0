// The device language of this project: all that a kernel may use beyond plain
// C++, threadIdx and its kin, __syncthreads, __syncwarp, the _sync shuffles and
// votes, __expf, rsqrtf, __fdividef, atomicAdd and __threadfence.
//
// One header, two implementations. Under nvcc each function is one or two
// instructions; under an ordinary compiler it is a call into the emulated
// device of tests/cuda_on_host, which also checks how it is used. Kernels have
// no inline PTX, no raw __shared__ and no <<<>>>; a new instruction is one more
// function here, with both bodies and a case in the emulator's test.

#ifndef LORIKEET_KERNELS_CUDA_DEVICE_H_
#define LORIKEET_KERNELS_CUDA_DEVICE_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#if defined(__CUDACC__)

#define DEVICE __device__ __forceinline__

// An array that the threads of a block share; its lifetime is the block's.
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]

// The shared memory whose size the launch gives, aligned to 128 bytes.
template <typename T>
DEVICE T* DynamicShared() {
  extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
  return reinterpret_cast<T*>(dynamic_shared_bytes);
}

// The same bits as another type of the same size.
template <typename To, typename From>
DEVICE To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// One access of sizeof(T) bytes (1, 2, 4, 8 or 16), naturally aligned.
template <typename T>
DEVICE T Load(const T* p) {
  return *p;
}
template <typename T>
DEVICE void Store(T* p, T value) {
  *p = value;
}
// Of global memory, 16 bytes, as one instruction: Store's are at times split.
template <typename T>
DEVICE void StoreGlobal16(T* p, T value) {
  static_assert(sizeof(T) == 16);
  const uint4 words = BitCast<uint4>(value);
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};\n" ::"l"(
                   __cvta_generic_to_global(p)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
// Of memory that nobody writes while the kernel runs (ld.global.nc).
template <typename T>
DEVICE T LoadReadOnly(const T* p) {
  return __ldg(p);
}

DEVICE uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies 16 bytes from global to shared memory without waiting; of `bytes` = 0
// nothing is read and zeros are written. It has landed after the CpAsyncWait of
// this thread, and for other threads after a barrier that follows it.
DEVICE void CpAsync16(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                   SharedAddress(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
DEVICE void CpAsyncCommit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Waits until at most N groups of this thread are under way.
template <int N>
DEVICE void CpAsyncWait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

// Loads four 8x8 matrices of 16-bit elements; lane i gives the address of row
// i % 8 of matrix i / 8. Of matrix m lane i gets elements 2 * (i % 4) and + 1
// of row i / 4, or of column i / 4 if transposed.
DEVICE void LdMatrixX4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
DEVICE void LdMatrixX4Transposed(uint32_t (&r)[4], const void* row) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(SharedAddress(row))
      : "memory");
}

// d [16, 8] += a [16, 16] b [16, 8], bf16 with f32 accumulators. With
// g = lane / 4 and t = lane % 4 * 2 a lane holds
//   a: rows g (0, 2) and g + 8 (1, 3), columns t, t + 1 (0, 1), + 8 (2, 3)
//   b: rows t, t + 1 (b0), + 8 (b1), column g
//   d: rows g (0, 1) and g + 8 (2, 3), columns t and t + 1
DEVICE void MmaM16N8K16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                        uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
      "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Barrier `id` (1 to 15) of `threads` threads, a multiple of 32.
DEVICE void NamedBarrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

#else
#include <cuda_on_host/device_language.h>
#endif

namespace lorikeet::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarpSize = 32;

// The sum over the lanes of a warp, the same bits in every lane.
DEVICE float WarpSum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    v += __shfl_xor_sync(kFullWarp, v, offset);
  }
  return v;
}
DEVICE float WarpMax(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    v = fmaxf(v, __shfl_xor_sync(kFullWarp, v, offset));
  }
  return v;
}

// Two floats rounded to bf16, `low` in the low half.
DEVICE uint32_t PackBf16(float low, float high) {
  return BitCast<uint32_t>(__floats2bfloat162_rn(low, high));
}

// Reads one element as f32, or writes one, rounding to nearest even.
DEVICE float LoadF32(const float* p) { return LoadReadOnly(p); }
DEVICE float LoadF32(const __nv_bfloat16* p) {
  return __bfloat162float(LoadReadOnly(p));
}
DEVICE void StoreF32(float* p, float v) { Store(p, v); }
DEVICE void StoreF32(__nv_bfloat16* p, float v) {
  Store(p, __float2bfloat16(v));
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_DEVICE_H_
