#include "tests/cuda_on_host/device_memory.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "tests/cuda_on_host/checker.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start;

namespace cuda_on_host {
namespace {

constexpr size_t kUnit = 256;  // alignment of an allocation, as cudaMalloc's
constexpr size_t kPage = 4096;
constexpr size_t kSparseFrom = size_t{256} << 20;
constexpr size_t kRedzone = 256;

struct Memory {
  std::vector<Allocation> allocations = std::vector<Allocation>(1);
  uint32_t* owner;  // index of the allocation, per unit
  char* next = reinterpret_cast<char*>(kDeviceBase + (1 << 20));
  int64_t allocated_bytes = 0;
  std::map<const char*, size_t> pinned;
  uintptr_t image_begin = 0, image_end = 0;
};

void FindImage(Memory* m) {
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        Memory* const memory = static_cast<Memory*>(data);
        uintptr_t begin = ~uintptr_t{0}, end = 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
          const uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
          begin = std::min(begin, at);
          end = std::max(end, at + info->dlpi_phdr[i].p_memsz);
        }
        const uintptr_t here = reinterpret_cast<uintptr_t>(&__ehdr_start);
        if (here < begin || here >= end) return 0;
        memory->image_begin = begin;
        memory->image_end = end;
        return 1;
      },
      m);
}

Memory& M() {
  static Memory* const memory = [] {
    auto* const m = new Memory();
    ReserveAddresses(kDeviceSpan, kDeviceBase, /*is_accessible=*/false);
    ReserveAddresses(kSharedSpan, kSharedBase, /*is_accessible=*/true);
    m->owner = static_cast<uint32_t*>(ReserveAddresses(
        kDeviceSpan / kUnit * sizeof(uint32_t), 0, /*is_accessible=*/true));
    FindImage(m);
    return m;
  }();
  return *memory;
}

size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }

uint32_t& OwnerOf(uintptr_t address) {
  return M().owner[(address - kDeviceBase) / kUnit];
}

void CheckSurroundings(const Allocation& a) {
  if (a.page_bytes > kSparseFrom) return;
  for (const char* c = a.pages; c < a.pages + a.page_bytes; ++c) {
    if (c == a.base) c += a.size;
    if (c >= a.pages + a.page_bytes) break;
    if (static_cast<uint8_t>(*c) == 0xFF) continue;
    ReportFinding("out of bounds",
                  "bytes around an allocation of " + std::to_string(a.size) +
                      " bytes were written, at offset " +
                      std::to_string(c - a.base),
                  "around");
    return;
  }
}

}  // namespace

void* ReserveAddresses(size_t size, uintptr_t at, bool is_accessible) {
  void* const p = mmap(reinterpret_cast<void*>(at), size,
                       is_accessible ? PROT_READ | PROT_WRITE : PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
                           (at != 0 ? MAP_FIXED_NOREPLACE : 0),
                       -1, 0);
  if (p == MAP_FAILED) {
    std::perror("cuda-on-host: cannot reserve address space");
    std::abort();
  }
  return p;
}

void* AllocateDevice(size_t size) {
  Memory& m = M();
  const size_t unit = RoundUp(size, kUnit);
  const size_t page_bytes = RoundUp(unit, kPage);
  if (m.allocated_bytes + static_cast<int64_t>(size) > options().memory_bytes ||
      m.next + page_bytes + 2 * kPage >
          reinterpret_cast<char*>(kDeviceBase + kDeviceSpan)) {
    return nullptr;
  }
  char* const pages = m.next + kPage;
  m.next = pages + page_bytes;
  CHECK_EQ(mprotect(pages, page_bytes, PROT_READ | PROT_WRITE), 0);
  if (page_bytes <= kSparseFrom) std::memset(pages, 0xFF, page_bytes);
  char* const base = pages + page_bytes - unit;
  const uint32_t index = static_cast<uint32_t>(m.allocations.size());
  m.allocations.push_back({base, size, pages, page_bytes, true});
  m.allocated_bytes += static_cast<int64_t>(size);
  for (size_t offset = 0; offset < unit; offset += kUnit) {
    OwnerOf(reinterpret_cast<uintptr_t>(base) + offset) = index;
  }
  return base;
}

bool FreeDevice(void* p) {
  Memory& m = M();
  if (!IsDevicePointer(p)) return false;
  Allocation& a = m.allocations[OwnerOf(reinterpret_cast<uintptr_t>(p))];
  if (a.base != p || !a.is_live) return false;
  CheckSurroundings(a);
  a.is_live = false;
  m.allocated_bytes -= static_cast<int64_t>(a.size);
  madvise(a.pages, a.page_bytes, MADV_DONTNEED);
  mprotect(a.pages, a.page_bytes, PROT_NONE);
  ForgetShadow(a.base, a.size);
  return true;
}

const Allocation& FindAllocation(uintptr_t address) {
  return M().allocations[OwnerOf(address)];
}

int64_t AllocatedBytes() { return M().allocated_bytes; }

void RegisterPinned(const void* p, size_t size) {
  M().pinned[static_cast<const char*>(p)] = size;
}
void UnregisterPinned(const void* p) {
  M().pinned.erase(static_cast<const char*>(p));
}
bool IsPinned(const void* p) {
  const auto& pinned = M().pinned;
  auto it = pinned.upper_bound(static_cast<const char*>(p));
  if (it == pinned.begin()) return false;
  --it;
  return static_cast<const char*>(p) < it->first + it->second;
}

bool IsInImage(uintptr_t address) {
  const Memory& m = M();
  return address >= m.image_begin && address < m.image_end;
}
uint32_t ImageOffset(const void* p) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p) -
                               M().image_begin);
}
const void* ImageAddress(uint32_t offset) {
  return reinterpret_cast<const void*>(M().image_begin + offset);
}

void ResetSharedMemory(Block& block) {
  M();
  block.arena = reinterpret_cast<char*>(kSharedBase);
  const size_t used = std::min(
      kSharedSpan,
      std::max(block.arena_used, block.kernel->shared_bytes) + kRedzone);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(block.arena, kSharedSpan);
#endif
  std::memset(block.arena, 0xFF, used);
  ForgetSharedState(used);
  block.arena_used = block.kernel->shared_bytes;
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(block.arena + block.arena_used,
                              kSharedSpan - block.arena_used);
#endif
  block.shared.assign(1, {nullptr, block.arena, block.kernel->shared_bytes,
                          "dynamic shared memory"});
}

const SharedRegion* FindShared(const Block& block, uintptr_t a, size_t size) {
  for (const SharedRegion& r : block.shared) {
    const uintptr_t base = reinterpret_cast<uintptr_t>(r.base);
    if (a >= base && a + size <= base + r.bytes) return &r;
  }
  return nullptr;
}

void* DynamicSharedBase() { return Self()->block->arena; }

void* StaticSharedBase(const void* site, size_t bytes, size_t align,
                       const char* name) {
  Block& block = *Self()->block;
  for (const SharedRegion& r : block.shared) {
    if (r.site == site) return r.base;
  }
  const size_t at =
      RoundUp(block.arena_used + kRedzone, std::max(align, size_t{16}));
  block.arena_used = at + bytes;
  CHECK_LE(block.arena_used, kSharedSpan);
  block.shared.push_back({site, block.arena + at, bytes, name});
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(block.arena + at, bytes);
#endif
  return block.arena + at;
}

}  // namespace cuda_on_host
