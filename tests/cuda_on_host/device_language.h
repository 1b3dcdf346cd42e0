// The CUDA device language for an ordinary C++ compiler: the other half of
// kernels/cuda/device.h.
//
// Threads are fibers (scheduler.h). Operations of a warp meet at a rendezvous,
// where the last lane to arrive does the work of all (collectives.cc). Every
// call carries its place in the source, which is how a finding names it and how
// two calls are known to be the same one.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_LANGUAGE_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_LANGUAGE_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

// CUDA's headers define these for every compiler.
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ use_SHARED_ARRAY_instead_of_raw_shared
#define __launch_bounds__(...)
#ifndef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))
#endif
#define DEVICE inline __attribute__((always_inline))

namespace cuda_on_host {

using Loc = std::source_location;

struct ThreadView {  // what a kernel can see of its thread
  uint3 thread_idx, block_idx;
  dim3 block_dim, grid_dim;
};
extern constinit thread_local ThreadView* t_view
    __attribute__((tls_model("initial-exec")));

void* DynamicSharedBase();
void* StaticSharedBase(const void* site, size_t bytes, size_t align,
                       const char* name);

void SyncThreads(Loc loc);
enum class Vote { kCount, kAll, kAny };
int SyncThreadsVote(int predicate, Vote vote, Loc loc);
void NamedBarrierSync(int id, int threads, Loc loc);
void SyncWarp(unsigned mask, Loc loc);
enum class Shuffle { kIndex, kUp, kDown, kXor };
uint64_t ShuffleBits(Shuffle kind, unsigned mask, uint64_t value, int argument,
                     int width, Loc loc);
unsigned Ballot(unsigned mask, int predicate, Loc loc);

void CpAsync(void* shared, const void* global, int read_bytes, Loc loc);
void CpAsyncCommitGroup();
void CpAsyncWaitGroup(int n, Loc loc);
void LdMatrix(uint32_t* r, bool transposed, const void* row, Loc loc);
void Mma16816(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, Loc loc);

// One access of exactly `bytes` bytes.
void LoadBytes(void* to, const void* from, int bytes, bool read_only, Loc loc);
void StoreBytes(void* to, const void* from, int bytes, Loc loc);
void Fence(bool of_device);
uint64_t AtomicRmw(void* p, int bytes, uint64_t (*op)(uint64_t, uint64_t),
                   uint64_t operand, Loc loc);
// The value, off by up to `ulps` units in the last place if options().perturb.
float Perturb(float value, float ulps);

}  // namespace cuda_on_host

#define threadIdx (::cuda_on_host::t_view->thread_idx)
#define blockIdx (::cuda_on_host::t_view->block_idx)
#define blockDim (::cuda_on_host::t_view->block_dim)
#define gridDim (::cuda_on_host::t_view->grid_dim)

#define SHARED_ARRAY(type, name, count)                                   \
  static const char name##_site = 0;                                      \
  type* const name = static_cast<type*>(::cuda_on_host::StaticSharedBase( \
      &name##_site, sizeof(type) * (count), alignof(type), #name))

#define CUDA_ON_HOST_LOC \
  ::cuda_on_host::Loc loc = ::cuda_on_host::Loc::current()

template <typename T>
DEVICE T* DynamicShared() {
  return static_cast<T*>(::cuda_on_host::DynamicSharedBase());
}
template <typename To, typename From>
DEVICE To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(static_cast<void*>(&to), &from, sizeof(To));
  return to;
}

#if defined(CUDA_ON_HOST_CHECKED)
template <typename T>
DEVICE T Load(const T* p, CUDA_ON_HOST_LOC) {
  T value;
  cuda_on_host::LoadBytes(&value, p, sizeof(T), false, loc);
  return value;
}
template <typename T>
DEVICE T LoadReadOnly(const T* p, CUDA_ON_HOST_LOC) {
  T value;
  cuda_on_host::LoadBytes(&value, p, sizeof(T), true, loc);
  return value;
}
template <typename T>
DEVICE void Store(T* p, T value, CUDA_ON_HOST_LOC) {
  cuda_on_host::StoreBytes(p, &value, sizeof(T), loc);
}
template <typename T>
DEVICE void StoreGlobal16(T* p, T value, CUDA_ON_HOST_LOC) {
  static_assert(sizeof(T) == 16);
  cuda_on_host::StoreBytes(p, &value, sizeof(T), loc);
}
#else
template <typename T>
DEVICE T Load(const T* p) {
  return *p;
}
template <typename T>
DEVICE T LoadReadOnly(const T* p) {
  return *p;
}
template <typename T>
DEVICE void Store(T* p, T value) {
  *p = value;
}
template <typename T>
DEVICE void StoreGlobal16(T* p, T value) {
  static_assert(sizeof(T) == 16);
  *p = value;
}
#endif

DEVICE void CpAsync16(void* shared, const void* global, int bytes = 16,
                      CUDA_ON_HOST_LOC) {
  cuda_on_host::CpAsync(shared, global, bytes, loc);
}
DEVICE void CpAsyncCommit() { cuda_on_host::CpAsyncCommitGroup(); }
template <int N>
DEVICE void CpAsyncWait(CUDA_ON_HOST_LOC) {
  cuda_on_host::CpAsyncWaitGroup(N, loc);
}
DEVICE void LdMatrixX4(uint32_t (&r)[4], const void* row, CUDA_ON_HOST_LOC) {
  cuda_on_host::LdMatrix(r, false, row, loc);
}
DEVICE void LdMatrixX4Transposed(uint32_t (&r)[4], const void* row,
                                 CUDA_ON_HOST_LOC) {
  cuda_on_host::LdMatrix(r, true, row, loc);
}
DEVICE void MmaM16N8K16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                        uint32_t b1, CUDA_ON_HOST_LOC) {
  cuda_on_host::Mma16816(d, a, b0, b1, loc);
}
DEVICE void NamedBarrier(int id, int threads, CUDA_ON_HOST_LOC) {
  cuda_on_host::NamedBarrierSync(id, threads, loc);
}

DEVICE void __syncthreads(CUDA_ON_HOST_LOC) { cuda_on_host::SyncThreads(loc); }
DEVICE int __syncthreads_or(int p, CUDA_ON_HOST_LOC) {
  return cuda_on_host::SyncThreadsVote(p, cuda_on_host::Vote::kAny, loc);
}
DEVICE int __syncthreads_and(int p, CUDA_ON_HOST_LOC) {
  return cuda_on_host::SyncThreadsVote(p, cuda_on_host::Vote::kAll, loc);
}
DEVICE int __syncthreads_count(int p, CUDA_ON_HOST_LOC) {
  return cuda_on_host::SyncThreadsVote(p, cuda_on_host::Vote::kCount, loc);
}
DEVICE void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_HOST_LOC) {
  cuda_on_host::SyncWarp(mask, loc);
}

namespace cuda_on_host {
template <typename T>
DEVICE T ShuffleValue(Shuffle kind, unsigned mask, T value, int argument,
                      int width, Loc loc) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return BitCast<T>(static_cast<Bits>(
      ShuffleBits(kind, mask, BitCast<Bits>(value), argument, width, loc)));
}
}  // namespace cuda_on_host

template <typename T>
DEVICE T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                     CUDA_ON_HOST_LOC) {
  return cuda_on_host::ShuffleValue(cuda_on_host::Shuffle::kIndex, mask, value,
                                    lane, width, loc);
}
template <typename T>
DEVICE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        CUDA_ON_HOST_LOC) {
  return cuda_on_host::ShuffleValue(cuda_on_host::Shuffle::kUp, mask, value,
                                    static_cast<int>(delta), width, loc);
}
template <typename T>
DEVICE T __shfl_down_sync(unsigned mask, T value, unsigned delta,
                          int width = 32, CUDA_ON_HOST_LOC) {
  return cuda_on_host::ShuffleValue(cuda_on_host::Shuffle::kDown, mask, value,
                                    static_cast<int>(delta), width, loc);
}
template <typename T>
DEVICE T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                         CUDA_ON_HOST_LOC) {
  return cuda_on_host::ShuffleValue(cuda_on_host::Shuffle::kXor, mask, value,
                                    lanes, width, loc);
}
DEVICE unsigned __ballot_sync(unsigned mask, int p, CUDA_ON_HOST_LOC) {
  return cuda_on_host::Ballot(mask, p, loc);
}
DEVICE int __any_sync(unsigned mask, int p, CUDA_ON_HOST_LOC) {
  return cuda_on_host::Ballot(mask, p, loc) != 0;
}
DEVICE int __all_sync(unsigned mask, int p, CUDA_ON_HOST_LOC) {
  return (cuda_on_host::Ballot(mask, p, loc) & mask) == mask;
}

DEVICE void __threadfence() { cuda_on_host::Fence(true); }
DEVICE void __threadfence_block() { cuda_on_host::Fence(false); }
template <typename T>
DEVICE T atomicAdd(T* p, T value, CUDA_ON_HOST_LOC) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const auto add = [](uint64_t a, uint64_t b) -> uint64_t {
    return BitCast<Bits>(static_cast<T>(BitCast<T>(static_cast<Bits>(a)) +
                                        BitCast<T>(static_cast<Bits>(b))));
  };
  return BitCast<T>(static_cast<Bits>(
      cuda_on_host::AtomicRmw(p, sizeof(T), add, BitCast<Bits>(value), loc)));
}

DEVICE int __popc(unsigned v) { return __builtin_popcount(v); }
DEVICE int __ffs(int v) { return __builtin_ffs(v); }
DEVICE int __clz(int v) {
  return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}
DEVICE unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((uint64_t{a} * b) >> 32);
}
// The errors that CUDA's programming guide documents for the intrinsics. Of 0,
// ex2.approx gives exactly 1 (PTX ISA, ex2).
DEVICE float __expf(float x) {
  if (x == 0.0f) return 1.0f;
  return cuda_on_host::Perturb(std::exp(x), 2.0f + std::fabs(1.173f * x));
}
DEVICE float __fdividef(float a, float b) {
  return cuda_on_host::Perturb(a / b, 2.0f);
}
DEVICE float rsqrtf(float a) {
  return cuda_on_host::Perturb(1.0f / std::sqrt(a), 2.0f);
}
template <typename T>
DEVICE T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
DEVICE T max(T a, T b) {
  return a < b ? b : a;
}

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_LANGUAGE_H_
