#include "tests/cuda_on_host/checker.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "tests/cuda_on_host/counters.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/happens_before.h"
#include "tests/cuda_on_host/scheduler.h"
#include "tests/cuda_on_host/stream_order.h"

namespace cuda_on_host {

void CheckShared(const void* p, size_t size, const char* what, const Loc& loc) {
  const Thread& t = *Self();
  const uintptr_t a = reinterpret_cast<uintptr_t>(p);
  const bool is_aligned = a % size == 0;
  if (is_aligned && FindShared(*t.block, a, size) != nullptr) return;
  ReportFinding(is_aligned ? "out of bounds" : "misaligned",
                std::string(what) +
                    (is_aligned ? " is not in the block's shared memory"
                                : " is not aligned to 16 bytes") +
                    ", at " + Where(loc) + ", block " +
                    std::to_string(t.block->index) + " thread " +
                    std::to_string(t.index),
                Where(loc));
  KillBlock(is_aligned ? cudaErrorIllegalAddress : cudaErrorMisalignedAddress);
}

#if !defined(CUDA_ON_HOST_CHECKED)

void OnLoad(const void*, size_t, bool, const Loc&) {}
void OnStore(const void*, size_t, const Loc&) {}
void OnAtomic(const void*, size_t, const Loc&) {}
void OnMatrixRow(const void*, const Loc&) {}
void OnCopyBegin(const void*, const void*, const Loc&) {}
void OnCopyEnd(const void*, const Loc&) {}
void ForgetShadow(const void*, size_t) {}
void ForgetSharedState(size_t) {}
void MarkDeviceRange(const void*, size_t, bool) {}

void OnStreamAccess(const void* p, size_t size, bool, const char* what) {
  const uintptr_t a = reinterpret_cast<uintptr_t>(p);
  if (!IsInDevice(a) || size == 0) return;
  const Allocation& allocation = FindAllocation(a);
  if (allocation.is_live &&
      a + size <=
          reinterpret_cast<uintptr_t>(allocation.base) + allocation.size) {
    return;
  }
  ReportFinding("out of bounds",
                std::string(what) + " beyond a device allocation", what);
}

#else

namespace {

// Who touched a granule of two bytes (one bf16).
struct Access {
  uint32_t launch;  // operation; for shared memory the block's instance
  uint32_t block;   // instance; 0 = an operation of a stream
  uint32_t site;    // SiteOf
  uint16_t thread, epoch, clock;
  uint8_t bytes;  // mask of the granule's bytes
  AccessKind kind;
};
struct Readers : Access {
  uint32_t lanes;  // of the warp of `thread`
};
struct Cell {
  Access write;
  Readers read[2];
};
enum State : uint8_t { kInitialised = 1, kPending = 2, kPoisoned = 4 };

struct Shadow {
  Cell* cells;
  uint8_t* state;
};
constexpr size_t kGranule = 2;

Shadow Reserve(size_t span) {
  return {static_cast<Cell*>(
              ReserveAddresses(span / kGranule * sizeof(Cell), 0, true)),
          static_cast<uint8_t*>(ReserveAddresses(span / kGranule, 0, true))};
}
Shadow& DeviceShadow() {
  static Shadow shadow = Reserve(kDeviceSpan);
  return shadow;
}
Shadow& SharedShadow() {
  static Shadow shadow = Reserve(kSharedSpan);
  return shadow;
}

// A place in the source as 32 bits: the record of a source location or a code
// address, as offset in this image.
static_assert(sizeof(Loc) == sizeof(void*));
uint32_t SiteOf(const Loc& loc) {
  const void* record;
  std::memcpy(&record, static_cast<const void*>(&loc), sizeof record);
  return ImageOffset(record) << 1 | 1;
}
uint32_t SiteOf(const void* pc) { return ImageOffset(pc) << 1; }

std::string SiteText(uint32_t site) {
  if (site == 0) return "an operation of a stream";
  const void* const address = ImageAddress(site >> 1);
  if ((site & 1) == 0) {
    return Symbolize(static_cast<const char*>(address) - 1);
  }
  Loc loc;
  std::memcpy(static_cast<void*>(&loc), &address, sizeof address);
  return Where(loc);
}

std::string Who(const Thread& t) {
  const uint3& b = t.view.block_idx;
  return "block (" + std::to_string(b.x) + "," + std::to_string(b.y) + "," +
         std::to_string(b.z) + ") thread " + std::to_string(t.index);
}

const char* KindName(AccessKind kind) {
  return kind == AccessKind::kWrite    ? "write"
         : kind == AccessKind::kAtomic ? "atomic"
                                       : "read";
}
bool IsWrite(AccessKind kind) {
  return kind == AccessKind::kWrite || kind == AccessKind::kAtomic;
}

[[gnu::cold, noreturn]] void Fault(const char* kind, cudaError_t error,
                                   const std::string& what, uint32_t site) {
  ReportFinding(kind, what + ", at " + SiteText(site) + ", " + Who(*Self()),
                SiteText(site));
  KillBlock(error);
}

// One access on its way through the checks.
struct Check {
  Thread* thread;  // null: an operation of a stream
  AccessKind kind;
  uint32_t site;
  uint32_t launch;
  bool is_shared;

  const char* space() const { return is_shared ? "shared" : "global"; }
};

bool IsOrdered(const Access& past, uint16_t thread, const Check& c) {
  if (past.launch != c.launch) {
    return c.is_shared || IsOperationBefore(past.launch);
  }
  if (c.thread == nullptr) return true;
  return IsBefore({past.block, past.epoch, thread, past.clock}, *c.thread);
}

std::string PlaceOf(const Access& a, uint16_t thread, const Check& c) {
  if (c.thread == nullptr || a.launch != c.launch) {
    return (a.block != 0 ? "thread " + std::to_string(thread) + " of "
                         : std::string()) +
           "another operation, no stream or event orders them";
  }
  if (a.block != c.thread->block->instance) {
    return "another block's thread " + std::to_string(thread) +
           ", nothing orders blocks";
  }
  return "thread " + std::to_string(thread) + ", no barrier orders them (" +
         (thread / 32 == c.thread->warp ? "same warp" : "same block") + ")";
}

[[gnu::cold]] void Race(const Access& past, uint16_t thread, const Check& c) {
  std::string text = std::string(c.space()) + " memory: " + KindName(c.kind);
  if (c.thread != nullptr) {
    text += " by thread " + std::to_string(c.thread->index);
  }
  text += " at " + SiteText(c.site) + " conflicts with " + KindName(past.kind) +
          " at " + SiteText(past.site) + " by " + PlaceOf(past, thread, c);
  ReportFinding("race", text, SiteText(c.site) + SiteText(past.site));
}

// ld.global.nc may give what was there before the launch wrote it.
void CheckReadOnly(const Cell& cell, uint8_t bytes, const Check& c) {
  if (c.is_shared || c.thread == nullptr) return;
  bool is_broken = c.kind == AccessKind::kReadOnly &&
                   cell.write.launch == c.launch && (cell.write.bytes & bytes);
  for (const Readers& r : cell.read) {
    is_broken |= IsWrite(c.kind) && r.launch == c.launch &&
                 r.kind == AccessKind::kReadOnly && (r.bytes & bytes);
  }
  if (!is_broken) return;
  ReportFinding("read-only load",
                std::string("the launch writes what it reads through the "
                            "read-only path, at ") +
                    SiteText(c.site) + ", " + Who(*c.thread),
                SiteText(c.site));
}

void RecordWrite(Cell& cell, const Access& now, const Check& c) {
  for (Readers& r : cell.read) {
    if (r.launch == 0 || !(r.bytes & now.bytes)) continue;
    for (uint32_t m = r.lanes; m != 0; m &= m - 1) {
      const uint16_t thread =
          static_cast<uint16_t>((r.thread & ~31) + __builtin_ctz(m));
      if (IsOrdered(r, thread, c)) continue;
      Race(r, thread, c);
      break;
    }
    r.launch = 0;
  }
  cell.write = now;
}

// Keeps two readers: one a warp, if possible one of another block.
void RecordRead(Cell& cell, const Access& now) {
  const uint32_t lane = 1u << (now.thread & 31);
  Readers* victim = nullptr;
  for (Readers& r : cell.read) {
    if (r.launch == now.launch && r.block == now.block &&
        r.thread / 32 == now.thread / 32) {
      victim = &r;
    }
  }
  const bool same_epoch = victim != nullptr && victim->epoch == now.epoch;
  const uint32_t lanes = same_epoch ? victim->lanes | lane : lane;
  // Once read through the read-only path is enough.
  const bool was_read_only =
      victim != nullptr && victim->kind == AccessKind::kReadOnly;
  for (Readers& r : cell.read) {
    if (victim == nullptr && r.launch != now.launch) victim = &r;
  }
  if (victim == nullptr) {
    victim = cell.read[0].block == now.block ? &cell.read[0] : &cell.read[1];
  }
  static_cast<Access&>(*victim) = now;
  victim->lanes = lanes;
  if (was_read_only) victim->kind = AccessKind::kReadOnly;
}

// Whether the thread has read the granule in this epoch already and nobody
// wrote it since: then there is nothing new to find.
bool IsReadAgain(const Cell& cell, uint8_t bytes, const Check& c) {
  if (c.thread == nullptr || IsWrite(c.kind)) return false;
  const Thread& t = *c.thread;
  for (const Readers& r : cell.read) {
    if (r.launch == c.launch && r.block == t.block->instance &&
        r.thread / 32 == t.warp && (r.lanes >> t.lane & 1) != 0 &&
        r.epoch == static_cast<uint16_t>(t.epoch) &&
        (r.bytes & bytes) == bytes &&
        (r.kind == c.kind || r.kind == AccessKind::kReadOnly)) {
      return true;
    }
  }
  return false;
}

void CheckRaces(Cell& cell, uint8_t bytes, const Check& c) {
  if (IsReadAgain(cell, bytes, c)) return;
  CheckReadOnly(cell, bytes, c);
  Access now{c.launch, 0, c.site, 0, 0, 0, bytes, c.kind};
  if (c.thread != nullptr) {
    now.block = c.thread->block->instance;
    now.thread = static_cast<uint16_t>(c.thread->index);
    now.epoch = static_cast<uint16_t>(c.thread->epoch);
    now.clock = static_cast<uint16_t>(c.thread->clock);
  }
  const Access& w = cell.write;
  const bool both_atomic =
      c.kind == AccessKind::kAtomic && w.kind == AccessKind::kAtomic;
  if (w.launch != 0 && (w.bytes & bytes) && !both_atomic &&
      !IsOrdered(w, w.thread, c)) {
    Race(w, w.thread, c);
  }
  if (IsWrite(c.kind)) {
    RecordWrite(cell, now, c);
  } else {
    RecordRead(cell, now);
  }
}

[[gnu::cold]] void ReportState(uint8_t state, const Check& c) {
  const std::string who =
      std::string(c.space()) + " memory: " + KindName(c.kind) + " at " +
      SiteText(c.site) +
      (c.thread != nullptr ? ", " + Who(*c.thread) : std::string());
  if (state & kPending) {
    ReportFinding("cp.async",
                  who +
                      ", of bytes that a cp.async may not have delivered: "
                      "its thread has not waited",
                  SiteText(c.site));
  } else if (state & kPoisoned) {
    ReportFinding("out of bounds", who + ", of a range that nobody owns",
                  SiteText(c.site));
  } else {
    ReportFinding("uninitialised", who + ", before anything was written there",
                  SiteText(c.site));
  }
}

void CheckGranules(const Shadow& shadow, size_t offset, size_t size,
                   const Check& c) {
  const size_t first = offset / kGranule;
  const size_t last = (offset + size - 1) / kGranule;
  const bool check_races = options().check_races;
  for (size_t g = first; g <= last; ++g) {
    uint8_t bytes = 3;
    if (g == first && offset % kGranule != 0) bytes &= 2;
    if (g == last && (offset + size) % kGranule != 0) bytes &= 1;
    uint8_t& state = shadow.state[g];
    if ((state & (kPending | kPoisoned)) != 0) {
      ReportState(state, c);
    } else if (!IsWrite(c.kind) && (state & kInitialised) == 0) {
      ReportState(state, c);
    }
    if (IsWrite(c.kind)) state |= kInitialised;
    if (check_races) CheckRaces(shadow.cells[g], bytes, c);
  }
}

void CheckGlobal(uintptr_t a, size_t size, AccessKind kind, uint32_t site,
                 Thread& t) {
  const Allocation& allocation = FindAllocation(a);
  const uintptr_t base = reinterpret_cast<uintptr_t>(allocation.base);
  if (base == 0 || !allocation.is_live || a + size > base + allocation.size) {
    std::string where = " outside of every allocation";
    if (base != 0) {
      where = allocation.is_live
                  ? " " +
                        std::to_string(
                            static_cast<int64_t>(a - base - allocation.size)) +
                        " bytes after the end of an allocation of " +
                        std::to_string(allocation.size) + " bytes"
                  : std::string(" of freed memory");
    }
    Fault("out of bounds", cudaErrorIllegalAddress,
          "global memory: " + std::to_string(size) + "-byte " + KindName(kind) +
              where,
          site);
  }
  CheckGranules(DeviceShadow(), a - kDeviceBase, size,
                {&t, kind, site, t.block->kernel->launch_id, false});
}

[[gnu::cold, noreturn]] void FaultInShared(uintptr_t a, size_t size,
                                           AccessKind kind, uint32_t site,
                                           const Block& block) {
  const SharedRegion* nearest = &block.shared[0];
  int64_t distance = int64_t{1} << 40;
  for (const SharedRegion& r : block.shared) {
    const int64_t d =
        static_cast<int64_t>(a) -
        static_cast<int64_t>(reinterpret_cast<uintptr_t>(r.base) + r.bytes);
    if (d + static_cast<int64_t>(size) >= 0 && d < distance) {
      distance = d;
      nearest = &r;
    }
  }
  Fault("out of bounds", cudaErrorIllegalAddress,
        "shared memory: " + std::to_string(size) + "-byte " + KindName(kind) +
            " " + std::to_string(distance) + " bytes after the end of " +
            nearest->name + " of " + std::to_string(nearest->bytes) + " bytes",
        site);
}

// What is neither global nor shared memory.
void CheckElsewhere(uintptr_t a, AccessKind kind, uint32_t site, Thread& t) {
  const Kernel& kernel = *t.block->kernel;
  if (a - reinterpret_cast<uintptr_t>(kernel.params) < kernel.param_bytes &&
      !IsWrite(kind)) {
    return;
  }
  if (IsInImage(a)) return;                                // a constant
  if (IsPinned(reinterpret_cast<const void*>(a))) return;  // mapped
  for (const Thread& other : t.block->threads) {
    if (a >= reinterpret_cast<uintptr_t>(other.stack_low) &&
        a < reinterpret_cast<uintptr_t>(other.stack_high)) {
      Fault("local memory", cudaErrorIllegalAddress,
            std::string(KindName(kind)) + " of another thread's variable",
            site);
    }
  }
  Fault("host pointer", cudaErrorIllegalAddress,
        std::string("the kernel uses a host pointer (") + KindName(kind) + ")",
        site);
}

bool IsOwnMemory(uintptr_t a, const Thread& t) {
  return (a >= reinterpret_cast<uintptr_t>(t.stack_low) &&
          a < reinterpret_cast<uintptr_t>(t.stack_high)) ||
         a - reinterpret_cast<uintptr_t>(&t.view) < sizeof(ThreadView) ||
         a == reinterpret_cast<uintptr_t>(&t_view);
}

// `counted`: not the second half of a cp.async.
void OnAccess(const void* p, size_t size, AccessKind kind, uint32_t site,
              bool counted) {
  Thread* const t = Self();
  const uintptr_t a = reinterpret_cast<uintptr_t>(p);
  if (t == nullptr) {
    if (IsInDevice(a)) {
      ReportFinding("host access",
                    "host code uses a device pointer at " + SiteText(site),
                    SiteText(site));
    }
    return;
  }
  if (IsOwnMemory(a, *t)) return;
  if ((size & (size - 1)) == 0 && (a & (size - 1)) != 0) {
    Fault("misaligned", cudaErrorMisalignedAddress,
          std::to_string(size) + "-byte " + KindName(kind) +
              " at an address that is " + std::to_string(a % size) +
              " beyond a multiple",
          site);
  }
  const bool is_shared = IsInShared(a);
  if (IsInDevice(a)) {
    CheckGlobal(a, size, kind, site, *t);
  } else if (is_shared) {
    if (FindShared(*t->block, a, size) == nullptr) {
      FaultInShared(a, size, kind, site, *t->block);
    }
    CheckGranules(SharedShadow(), a - kSharedBase, size,
                  {t, kind, site, t->block->instance, true});
  } else {
    return CheckElsewhere(a, kind, site, *t);
  }
  if (t->block->kernel->counters != nullptr && counted) {
    CountAccess(*t, a, size, IsWrite(kind), is_shared, site);
  }
}

}  // namespace

std::string SiteName(uint32_t site) { return SiteText(site); }

void OnLoad(const void* p, size_t size, bool read_only, const Loc& loc) {
  OnAccess(p, size, read_only ? AccessKind::kReadOnly : AccessKind::kRead,
           SiteOf(loc), true);
}
void OnStore(const void* p, size_t size, const Loc& loc) {
  OnAccess(p, size, AccessKind::kWrite, SiteOf(loc), true);
}
void OnAtomic(const void* p, size_t size, const Loc& loc) {
  OnAccess(p, size, AccessKind::kAtomic, SiteOf(loc), true);
}
void OnPlainAccess(const void* p, size_t size, AccessKind kind,
                   const void* pc) {
  OnAccess(p, size, kind,
           IsInImage(reinterpret_cast<uintptr_t>(pc)) ? SiteOf(pc) : 0, true);
}
void OnMatrixRow(const void* row, const Loc& loc) {
  OnAccess(row, 16, AccessKind::kRead, SiteOf(loc), false);
}

void OnCopyBegin(const void* shared, const void* global, const Loc& loc) {
  OnAccess(shared, 16, AccessKind::kWrite, SiteOf(loc), true);
  if (global != nullptr) {
    OnAccess(global, 16, AccessKind::kRead, SiteOf(loc), true);
  }
  uint8_t* const state =
      SharedShadow().state +
      (reinterpret_cast<uintptr_t>(shared) - kSharedBase) / kGranule;
  for (size_t g = 0; g < 16 / kGranule; ++g) state[g] |= kPending;
}

void OnCopyEnd(const void* shared, const Loc& loc) {
  uint8_t* const state =
      SharedShadow().state +
      (reinterpret_cast<uintptr_t>(shared) - kSharedBase) / kGranule;
  for (size_t g = 0; g < 16 / kGranule; ++g) {
    state[g] &= static_cast<uint8_t>(~kPending);
  }
  OnAccess(shared, 16, AccessKind::kWrite, SiteOf(loc), false);
}

void OnStreamAccess(const void* p, size_t size, bool is_write,
                    const char* what) {
  const uintptr_t a = reinterpret_cast<uintptr_t>(p);
  if (!IsInDevice(a) || size == 0) return;
  const Allocation& allocation = FindAllocation(a);
  if (!allocation.is_live ||
      a + size >
          reinterpret_cast<uintptr_t>(allocation.base) + allocation.size) {
    ReportFinding("out of bounds",
                  std::string(what) + " beyond a device allocation", what);
    return;
  }
  const Shadow& shadow = DeviceShadow();
  const size_t first = (a - kDeviceBase) / kGranule;
  const size_t last = (a - kDeviceBase + size - 1) / kGranule;
  const Check check{nullptr, is_write ? AccessKind::kWrite : AccessKind::kRead,
                    0, CurrentOperationId(), false};
  for (size_t g = first; g <= last; ++g) {
    uint8_t& state = shadow.state[g];
    if ((state & kPoisoned) != 0 || (!is_write && !(state & kInitialised))) {
      ReportFinding(
          (state & kPoisoned) != 0 ? "out of bounds" : "uninitialised",
          std::string(what) + " at offset " +
              std::to_string(kDeviceBase + g * kGranule -
                             reinterpret_cast<uintptr_t>(allocation.base)) +
              " of " + std::to_string(allocation.size) + " bytes",
          what);
      return;
    }
    if (is_write) state |= kInitialised;
    if (options().check_races) CheckRaces(shadow.cells[g], 3, check);
  }
}

void MarkDeviceRange(const void* p, size_t size, bool is_poisoned) {
  std::memset(DeviceShadow().state +
                  (reinterpret_cast<uintptr_t>(p) - kDeviceBase) / kGranule,
              is_poisoned ? kPoisoned : 0, size / kGranule);
}

void ForgetShadow(const void* p, size_t size) {
  const Shadow& shadow = DeviceShadow();
  const size_t first =
      (reinterpret_cast<uintptr_t>(p) - kDeviceBase) / kGranule;
  const auto forget = [](void* begin, void* end) {
    const uintptr_t from =
        (reinterpret_cast<uintptr_t>(begin) + 4095) / 4096 * 4096;
    const uintptr_t to = reinterpret_cast<uintptr_t>(end) / 4096 * 4096;
    if (from < to) {
      madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
    }
  };
  forget(shadow.cells + first, shadow.cells + first + size / kGranule);
  forget(shadow.state + first, shadow.state + first + size / kGranule);
}

void ForgetSharedState(size_t size) {
  std::memset(SharedShadow().state, 0, size / kGranule);
}

#endif

}  // namespace cuda_on_host
