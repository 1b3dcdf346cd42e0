// KvBlocks keeps the block tables of sequences: growth, sharing, copy on write
// and what the prefix cache learns.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_SCHEDULER_KV_BLOCKS_H_
#define LORIKEET_SERVER_SCHEDULER_KV_BLOCKS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "server/scheduler/block_allocator.h"
#include "server/scheduler/prefix_cache.h"
#include "server/scheduler/sequence.h"

namespace lorikeet {

class KvBlocks {
 public:
  using BlockCopy = std::pair<int32_t, int32_t>;  // (from, to)

  explicit KvBlocks(const SchedulerOptions& options);

  const BlockAllocator& allocator() const { return allocator_; }
  // Blocks that hold `num_tokens` tokens.
  int64_t BlocksFor(int64_t num_tokens) const {
    return (num_tokens + block_size_ - 1) / block_size_;
  }

  // Returns the cached blocks that `s` could start with: full blocks only, at
  // least one token is left to compute.
  std::vector<PrefixCache::Hit> FindPrefix(const Sequence& s) const;
  // Of these, how many nobody uses (taking them makes fewer available).
  int64_t CountUnused(std::span<const PrefixCache::Hit> hits) const;
  // Starts `s`, which has no blocks, with `hits`.
  void AdoptPrefix(std::span<const PrefixCache::Hit> hits, Sequence* s);

  // Gives `s` the blocks to write positions [num_computed, end), the first
  // one copied if it is shared. Returns false if blocks ran out; `s` keeps
  // those that it got.
  bool Reserve(int64_t end, Sequence* s, std::optional<BlockCopy>* copy);
  // Makes `to` share all that `from` has computed.
  void Fork(const Sequence& from, Sequence* to);
  // Tells the prefix cache of the blocks that are full by now. A block whose
  // like is known already is given back for it.
  void Register(Sequence* s);
  // Takes all blocks from `s`; it starts again from nothing.
  void Release(Sequence* s);
  // The step is over: sources of its copies need not be kept any more.
  void EndStep();

  int64_t FlushPrefixCache() { return allocator_.FreeCached(); }
  // CHECKs that `sequences` hold exactly the references that are counted.
  void CheckInvariants(std::span<const Sequence* const> sequences) const;

 private:
  int64_t CountCopiesFrom(int32_t block) const;
  // The domain of a full block: that of its last position. One that a domain
  // begins within is of the new domain, which says where it began.
  const KvDomain& DomainOf(const Sequence& s, int64_t block) const;

  const int64_t block_size_;
  const bool prefix_caching_;
  PrefixCache cache_;
  BlockAllocator allocator_;
  std::vector<int32_t> copy_sources_;  // one reference each, until EndStep
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_KV_BLOCKS_H_
