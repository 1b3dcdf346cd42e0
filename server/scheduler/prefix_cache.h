// A PrefixCache remembers which KV block holds which full block of tokens
// behind which prefix.
//
// Entries form chains: an entry names its parent by a serial number that is
// never used again. A hit compares domain, parent and all tokens, so equal
// hashes alone never make two prefixes equal. It owns no blocks: the
// BlockAllocator decides when one is given away and calls Forget.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_SCHEDULER_PREFIX_CACHE_H_
#define LORIKEET_SERVER_SCHEDULER_PREFIX_CACHE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/token.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

class PrefixCache {
 public:
  // A place in a chain: where the next block's entry hangs. The default is the
  // start of a chain.
  struct Link {
    uint64_t serial = 0;
    uint64_t hash = 0;
  };
  struct Hit {
    int32_t block = 0;
    Link link;
  };

  PrefixCache(int64_t num_blocks, int64_t block_size);

  // Returns the block that holds `tokens` right behind `parent`.
  // REQUIRES: tokens.size() is the block size.
  std::optional<Hit> Lookup(const KvDomain& domain, const Link& parent,
                            std::span<const Token> tokens) const;
  // Remembers that `block` holds `tokens` behind `parent` and returns its
  // place. If an entry has the same hash, it is forgotten and its block
  // returned in `displaced`. REQUIRES: Lookup gives nothing.
  Link Insert(const KvDomain& domain, const Link& parent,
              std::span<const Token> tokens, int32_t block,
              std::optional<int32_t>* displaced);
  // Forgets the entry of `block`. REQUIRES: it has one.
  void Forget(int32_t block);

  int64_t size() const { return static_cast<int64_t>(by_hash_.size()); }

 private:
  struct Entry {
    KvDomain domain;
    Link link;
    uint64_t parent_serial = 0;
    std::vector<Token> tokens;  // empty = no entry
  };
  Entry& at(int32_t block) { return entries_[static_cast<size_t>(block)]; }
  const Entry& at(int32_t block) const {
    return entries_[static_cast<size_t>(block)];
  }

  const int64_t block_size_;
  uint64_t next_serial_ = 1;
  std::vector<Entry> entries_;                      // by block
  absl::flat_hash_map<uint64_t, int32_t> by_hash_;  // to block
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_PREFIX_CACHE_H_
