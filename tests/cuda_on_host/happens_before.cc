#include "tests/cuda_on_host/happens_before.h"

#include <algorithm>

namespace cuda_on_host {
namespace {

const Release* Find(const std::map<uint32_t, Release>& releases,
                    uint32_t block) {
  const auto it = releases.find(block);
  return it == releases.end() ? nullptr : &it->second;
}

bool IsReleased(const Moment& past, const Release* release) {
  if (release == nullptr) return false;
  return past.epoch < release->epoch ||
         (past.thread == release->thread && past.clock <= release->clock);
}

}  // namespace

void JoinClocks(Block& block, const std::vector<Thread*>& members) {
  const size_t n = block.threads.size();
  if (block.seen.empty()) block.seen.assign(n * n, 0);
  std::vector<uint32_t> joined(n, 0);
  for (const Thread* t : members) {
    const size_t self = static_cast<size_t>(t->index);
    const uint32_t* const row = &block.seen[self * n];
    for (size_t i = 0; i < n; ++i) joined[i] = std::max(joined[i], row[i]);
    joined[self] = std::max(joined[self], t->clock);
  }
  for (Thread* t : members) {
    std::copy(joined.begin(), joined.end(),
              block.seen.begin() + static_cast<std::ptrdiff_t>(
                                       static_cast<size_t>(t->index) * n));
    ++t->clock;
  }
}

bool IsBefore(const Moment& past, const Thread& t) {
  const Block& block = *t.block;
  if (past.block != block.instance) {
    return IsReleased(past, Find(t.acquired, past.block)) ||
           IsReleased(past, Find(block.acquired, past.block));
  }
  if (past.thread == static_cast<uint32_t>(t.index)) return true;
  if (past.epoch < t.epoch) return true;
  if (block.seen.empty()) return false;
  return block.seen[static_cast<size_t>(t.index) * block.threads.size() +
                    past.thread] >= past.clock;
}

}  // namespace cuda_on_host
