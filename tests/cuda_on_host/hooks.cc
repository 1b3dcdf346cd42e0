// What the compiler calls at the loads and stores of a kernel: the functions of
// ThreadSanitizer's interface, in our own words. Checked build only.

#include "tests/cuda_on_host/checker.h"

#if defined(CUDA_ON_HOST_CHECKED)

namespace {
using cuda_on_host::AccessKind;
using cuda_on_host::OnPlainAccess;
}  // namespace

#define CUDA_ON_HOST_PC __builtin_return_address(0)
#define CUDA_ON_HOST_ACCESS(name, n)                          \
  void __tsan_##name##read##n(void* p) {                      \
    OnPlainAccess(p, n, AccessKind::kRead, CUDA_ON_HOST_PC);  \
  }                                                           \
  void __tsan_##name##write##n(void* p) {                     \
    OnPlainAccess(p, n, AccessKind::kWrite, CUDA_ON_HOST_PC); \
  }
// Atomics of host code in the same files.
#define CUDA_ON_HOST_ATOMIC(bits, T)                                          \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                    \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                              \
  }                                                                           \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                 \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                 \
  }                                                                           \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                 \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                       \
  }                                                                           \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                        \
  }                                                                           \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                        \
  }                                                                           \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* old,    \
                                                    T v, int, int) {          \
    return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST,    \
                                       __ATOMIC_SEQ_CST);                     \
  }                                                                           \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* old, T v, \
                                                  int, int) {                 \
    return __atomic_compare_exchange_n(p, old, v, true, __ATOMIC_SEQ_CST,     \
                                       __ATOMIC_SEQ_CST);                     \
  }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
CUDA_ON_HOST_ACCESS(, 1)
CUDA_ON_HOST_ACCESS(, 2)
CUDA_ON_HOST_ACCESS(, 4)
CUDA_ON_HOST_ACCESS(, 8)
CUDA_ON_HOST_ACCESS(, 16)
CUDA_ON_HOST_ACCESS(unaligned_, 2)
CUDA_ON_HOST_ACCESS(unaligned_, 4)
CUDA_ON_HOST_ACCESS(unaligned_, 8)
CUDA_ON_HOST_ACCESS(unaligned_, 16)
void __tsan_read_range(void* p, size_t n) {
  OnPlainAccess(p, n, AccessKind::kRead, CUDA_ON_HOST_PC);
}
void __tsan_write_range(void* p, size_t n) {
  OnPlainAccess(p, n, AccessKind::kWrite, CUDA_ON_HOST_PC);
}
CUDA_ON_HOST_ATOMIC(8, uint8_t)
CUDA_ON_HOST_ATOMIC(16, uint16_t)
CUDA_ON_HOST_ATOMIC(32, uint32_t)
CUDA_ON_HOST_ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}

#endif
