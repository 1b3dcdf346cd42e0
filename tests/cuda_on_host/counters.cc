#include "tests/cuda_on_host/counters.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace cuda_on_host {
namespace {

constexpr uintptr_t kSectorBytes = 32;
constexpr size_t kBanks = 32;

// The lanes of a warp at one place, for the n-th time.
struct Request {
  uintptr_t address[32];
  uint32_t lanes = 0;
  uint32_t size = 0;
  bool is_shared = false, is_store = false;
  uint32_t site = 0;
};
struct Key {
  uint32_t site;
  uint32_t who;  // thread or warp, and the kind of access
  uint32_t occurrence;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& k) const {
    return (k.site * 0x9E3779B97F4A7C15ull) ^ (k.who * 0xC2B2AE3D27D4EB4Full) ^
           (k.occurrence * 0x165667B19E3779F9ull);
  }
};

struct Counts {
  std::map<std::string, KernelCounters> kernels;
  std::unordered_map<Key, uint32_t, KeyHash> occurrences;
  std::unordered_map<Key, Request, KeyHash> requests;
  std::unordered_set<uintptr_t> sectors_read, sectors_written;
};
Counts& C() {
  static auto* const counts = new Counts();
  return *counts;
}

template <typename T>
size_t SortUnique(std::vector<T>* v) {
  std::sort(v->begin(), v->end());
  v->erase(std::unique(v->begin(), v->end()), v->end());
  return v->size();
}

// Sectors that a request touches; the ideal is that of its distinct bytes (a
// broadcast is no loss).
AccessCounters CountGlobal(const Request& r) {
  std::vector<uintptr_t> sectors, addresses;
  for (uint32_t m = r.lanes; m != 0; m &= m - 1) {
    const uintptr_t a = r.address[__builtin_ctz(m)];
    addresses.push_back(a);
    for (uintptr_t s = a / kSectorBytes; s <= (a + r.size - 1) / kSectorBytes;
         ++s) {
      sectors.push_back(s);
    }
  }
  AccessCounters c;
  c.units = SortUnique(&sectors);
  c.ideal = (SortUnique(&addresses) * r.size + kSectorBytes - 1) / kSectorBytes;
  auto& set = r.is_store ? C().sectors_written : C().sectors_read;
  set.insert(sectors.begin(), sectors.end());
  return c;
}

// The passes over the banks that one phase of a request needs.
size_t Wavefronts(const std::vector<uintptr_t>& words) {
  std::vector<uintptr_t> distinct = words;
  SortUnique(&distinct);
  size_t load[kBanks] = {};
  for (const uintptr_t w : distinct) ++load[w % kBanks];
  return *std::max_element(load, load + kBanks);
}

AccessCounters CountShared(const Request& r) {
  AccessCounters c;
  const int lanes_per_phase = r.size <= 4 ? 32 : r.size == 8 ? 16 : 8;
  for (int first = 0; first < 32; first += lanes_per_phase) {
    std::vector<uintptr_t> words;
    for (int lane = first; lane < first + lanes_per_phase; ++lane) {
      if ((r.lanes >> lane & 1) == 0) continue;
      const uintptr_t a = r.address[lane];
      for (uintptr_t w = a / 4; w <= (a + r.size - 1) / 4; ++w) {
        words.push_back(w);
      }
    }
    if (words.empty()) continue;
    c.units += Wavefronts(words);
    ++c.ideal;
  }
  return c;
}

void Add(const AccessCounters& from, AccessCounters* to) {
  to->requests += from.requests;
  to->bytes += from.bytes;
  to->units += from.units;
  to->ideal += from.ideal;
}

void Finish(const Request& r, KernelCounters* k) {
  AccessCounters c = r.is_shared ? CountShared(r) : CountGlobal(r);
  c.requests = 1;
  c.bytes = static_cast<uint64_t>(__builtin_popcount(r.lanes)) * r.size;
  AccessCounters& total = r.is_shared
                              ? (r.is_store ? k->shared_store : k->shared_load)
                              : (r.is_store ? k->global_store : k->global_load);
  Add(c, &total);
  const std::string name = std::string(r.is_shared ? "shared " : "global ") +
                           (r.is_store ? "store " : "load ") +
                           std::to_string(r.size) + "B " + SiteName(r.site);
  Add(c, &k->sites[name]);
}

}  // namespace

KernelCounters* CountersOf(const void* function) {
#if defined(CUDA_ON_HOST_CHECKED)
  if (options().count) return &C().kernels[FunctionName(function)];
#endif
  (void)function;
  return nullptr;
}

std::map<std::string, KernelCounters> TakeCounters() {
  return std::exchange(C().kernels, {});
}

void CountAccess(const Thread& t, uintptr_t address, size_t size, bool is_store,
                 bool is_shared, uint32_t site) {
  Counts& c = C();
  const uint32_t kind = (is_shared ? 2u : 0u) | (is_store ? 1u : 0u);
  const uint32_t occurrence =
      c.occurrences[{site, static_cast<uint32_t>(t.index) << 2 | kind, 0}]++;
  Request& r =
      c.requests[{site, static_cast<uint32_t>(t.warp) << 2 | kind, occurrence}];
  r.site = site;
  r.is_shared = is_shared;
  r.is_store = is_store;
  r.size = static_cast<uint32_t>(size);
  r.lanes |= 1u << t.lane;
  r.address[t.lane] = address;
}

void CountMatrixRows(const Thread& t, void* const* rows, const Loc& loc) {
  KernelCounters& k = *t.block->kernel->counters;
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::vector<uintptr_t> words;
    for (int row = 0; row < 8; ++row) {
      const uintptr_t a =
          reinterpret_cast<uintptr_t>(rows[matrix * 8 + row]) / 4;
      for (uintptr_t w = 0; w < 4; ++w) words.push_back(a + w);
    }
    const AccessCounters c{1, 128, Wavefronts(words), 1};
    Add(c, &k.shared_load);
    Add(c, &k.sites["shared load ldmatrix " + Where(loc)]);
  }
}

void CountBlockEnd(const Block& block) {
  Counts& c = C();
  KernelCounters& k = *block.kernel->counters;
  ++k.blocks;
  k.max_shared_bytes = std::max<uint64_t>(k.max_shared_bytes, block.arena_used);
  for (const auto& [key, request] : c.requests) Finish(request, &k);
  c.requests.clear();
  c.occurrences.clear();
}

void CountLaunchEnd(const Kernel& kernel) {
  Counts& c = C();
  KernelCounters& k = *kernel.counters;
  ++k.launches;
  k.footprint_load_bytes += c.sectors_read.size() * kSectorBytes;
  k.footprint_store_bytes += c.sectors_written.size() * kSectorBytes;
  c.sectors_read.clear();
  c.sectors_written.clear();
}

#if !defined(CUDA_ON_HOST_CHECKED)
std::string SiteName(uint32_t) { return {}; }
#endif

}  // namespace cuda_on_host
