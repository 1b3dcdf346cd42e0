// cp.async, fences, atomics, and accesses of an exact width.

#include <cstring>
#include <map>

#include "tests/cuda_on_host/checker.h"
#include "tests/cuda_on_host/scheduler.h"

namespace cuda_on_host {
namespace {

constexpr int kCopyBytes = 16;

void Land(PendingCopy& copy) {
  if (copy.has_landed) return;
  copy.has_landed = true;
  std::memset(copy.to, 0, kCopyBytes);
  if (copy.read_bytes > 0) std::memcpy(copy.to, copy.from, kCopyBytes);
}

// What atomics of one launch published, by address and block.
struct Published {
  uint32_t launch = 0;
  std::map<const void*, std::map<uint32_t, Release>> at;
};
Published& Releases() {
  static auto* const published = new Published();
  return *published;
}

template <typename Bits>
uint64_t Exchange(void* p, uint64_t (*op)(uint64_t, uint64_t),
                  uint64_t operand) {
  Bits old;
  std::memcpy(&old, p, sizeof old);
  const Bits fresh = static_cast<Bits>(op(old, operand));
  std::memcpy(p, &fresh, sizeof fresh);
  return old;
}

}  // namespace

void CpAsync(void* shared, const void* global, int read_bytes, Loc loc) {
  Thread* const self = Self();
  CheckShared(shared, kCopyBytes, "cp.async destination", loc);
  OnCopyBegin(shared, read_bytes > 0 ? global : nullptr, loc);
  PendingCopy copy{shared, global, read_bytes, false, loc};
  // Until the wait the destination may hold anything: poison it, or let the
  // copy land at once; both must be tolerated.
  if (options().schedule == Options::Schedule::kRandom && RandomBelow(8) == 0) {
    Land(copy);
  } else {
    std::memset(shared, 0xFF, kCopyBytes);
  }
  self->open_copies.push_back(copy);
}

void CpAsyncCommitGroup() {
  Thread* const self = Self();
  self->copies.push_back(std::move(self->open_copies));
  self->open_copies.clear();
}

void CpAsyncWaitGroup(int n, Loc loc) {
  Thread* const self = Self();
  while (static_cast<int>(self->copies.size()) > n) {
    for (PendingCopy& copy : self->copies.front()) {
      Land(copy);
      OnCopyEnd(copy.to, loc);
    }
    self->copies.erase(self->copies.begin());
  }
}

// A release is: barrier, then one thread: fence, atomic. An acquire is: atomic,
// fence, barrier. An atomic alone orders nothing (it is relaxed).
void Fence(bool of_device) {
  if (!of_device) return;
  Thread& t = *Self();
  t.published = {t.epoch, static_cast<uint32_t>(t.index), t.clock++};
  t.has_fenced = true;
  for (const auto& [block, release] : t.observed) t.acquired[block] = release;
}

uint64_t AtomicRmw(void* p, int bytes, uint64_t (*op)(uint64_t, uint64_t),
                   uint64_t operand, Loc loc) {
  OnAtomic(p, static_cast<size_t>(bytes), loc);
  Thread& t = *Self();
  Published& published = Releases();
  if (published.launch != t.block->kernel->launch_id) {
    published = {t.block->kernel->launch_id, {}};
  }
  std::map<uint32_t, Release>& at = published.at[p];
  for (const auto& [block, release] : at) t.observed[block] = release;
  if (t.has_fenced) at[t.block->instance] = t.published;
  return bytes == 4 ? Exchange<uint32_t>(p, op, operand)
                    : Exchange<uint64_t>(p, op, operand);
}

void LoadBytes(void* to, const void* from, int bytes, bool read_only, Loc loc) {
  OnLoad(from, static_cast<size_t>(bytes), read_only, loc);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void StoreBytes(void* to, const void* from, int bytes, Loc loc) {
  OnStore(to, static_cast<size_t>(bytes), loc);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace cuda_on_host
