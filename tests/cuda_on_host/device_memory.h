// Memory of the emulated device: one range of addresses for global memory, one
// for the shared memory of the running block, and what is known of the host's.
//
// An allocation ends right before a guard page, is filled with NaN, and its
// addresses are never used again. Large ones stay sparse, so that a test of
// indices beyond 2^31 costs no memory.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_MEMORY_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "tests/cuda_on_host/scheduler.h"

namespace cuda_on_host {

// Above the shadow of AddressSanitizer.
inline constexpr uintptr_t kDeviceBase = 0x200000000000;
inline constexpr size_t kDeviceSpan = size_t{128} << 30;
inline constexpr uintptr_t kSharedBase = kDeviceBase + kDeviceSpan + (1 << 30);
inline constexpr size_t kSharedSpan = 1 << 20;

inline bool IsInDevice(uintptr_t a) { return a - kDeviceBase < kDeviceSpan; }
inline bool IsInShared(uintptr_t a) { return a - kSharedBase < kSharedSpan; }
inline bool IsDevicePointer(const void* p) {
  return IsInDevice(reinterpret_cast<uintptr_t>(p));
}

struct Allocation {
  char* base = nullptr;
  size_t size = 0;
  char* pages = nullptr;
  size_t page_bytes = 0;
  bool is_live = false;
};

// Returns null if the addresses or options().memory_bytes are used up.
void* AllocateDevice(size_t size);
// False: `p` is no live allocation. Reports bytes written around it.
bool FreeDevice(void* p);
// Of a device address; `base` is null outside of all.
const Allocation& FindAllocation(uintptr_t address);
int64_t AllocatedBytes();

void RegisterPinned(const void* p, size_t size);
void UnregisterPinned(const void* p);
bool IsPinned(const void* p);
// In this program's image: a constant.
bool IsInImage(uintptr_t address);
// The place of a code address or of a source location's record in it.
uint32_t ImageOffset(const void* p);
const void* ImageAddress(uint32_t offset);

// Makes the shared memory of a new block: poisoned, with its dynamic part.
void ResetSharedMemory(Block& block);
// The region that holds all of [a, a + size); null = none.
const SharedRegion* FindShared(const Block& block, uintptr_t a, size_t size);

// Address space that costs memory only where it is touched.
void* ReserveAddresses(size_t size, uintptr_t at, bool is_accessible);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_DEVICE_MEMORY_H_
