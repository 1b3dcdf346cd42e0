#include "server/scheduler/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet {
namespace {

// The finalizer of MurmurHash3 (public domain): every input bit reaches every
// output bit. A collision costs a miss and nothing else.
uint64_t Mix(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  h ^= h >> 33;
  return h;
}

uint64_t ChainHash(const KvDomain& domain, uint64_t parent_hash,
                   std::span<const Token> tokens) {
  uint64_t h = Mix(parent_hash ^ domain.value[0]);
  h = Mix(h + domain.value[1]);
  for (const Token token : tokens) {
    h = Mix(h * 31 + static_cast<uint32_t>(token) + 1);
  }
  return h;
}

}  // namespace

PrefixCache::PrefixCache(int64_t num_blocks, int64_t block_size)
    : block_size_(block_size), entries_(static_cast<size_t>(num_blocks)) {}

std::optional<PrefixCache::Hit> PrefixCache::Lookup(
    const KvDomain& domain, const Link& parent,
    std::span<const Token> tokens) const {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), block_size_);
  const auto it = by_hash_.find(ChainHash(domain, parent.hash, tokens));
  if (it == by_hash_.end()) return std::nullopt;
  const Entry& entry = at(it->second);
  if (entry.domain != domain || entry.parent_serial != parent.serial ||
      !std::ranges::equal(entry.tokens, tokens)) {
    return std::nullopt;
  }
  return Hit{it->second, entry.link};
}

PrefixCache::Link PrefixCache::Insert(const KvDomain& domain,
                                      const Link& parent,
                                      std::span<const Token> tokens,
                                      int32_t block,
                                      std::optional<int32_t>* displaced) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), block_size_);
  Entry& entry = at(block);
  CHECK(entry.tokens.empty());
  const uint64_t hash = ChainHash(domain, parent.hash, tokens);
  displaced->reset();
  if (const auto it = by_hash_.find(hash); it != by_hash_.end()) {
    // Its parent was given away meanwhile, so nobody could reach it.
    *displaced = it->second;
    Forget(it->second);
  }
  entry.domain = domain;
  entry.link = {next_serial_++, hash};
  entry.parent_serial = parent.serial;
  entry.tokens.assign(tokens.begin(), tokens.end());
  by_hash_[hash] = block;
  return entry.link;
}

void PrefixCache::Forget(int32_t block) {
  Entry& entry = at(block);
  CHECK(!entry.tokens.empty());
  CHECK_EQ(by_hash_.erase(entry.link.hash), 1);
  entry.tokens.clear();
}

}  // namespace lorikeet
