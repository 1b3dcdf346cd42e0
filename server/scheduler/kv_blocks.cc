#include "server/scheduler/kv_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet {
namespace {

// Prompt logprobs need every row of the prompt, so nothing may be skipped
// until they are complete.
bool MayReadCache(const Sequence& s) {
  const SchedulerRequest& r = s.entry->request;
  return r.use_prefix_cache && (!r.all_prompt_logits || s.has_sampled());
}

}  // namespace

KvBlocks::KvBlocks(const SchedulerOptions& options)
    : block_size_(options.block_size),
      prefix_caching_(options.prefix_caching),
      cache_(options.num_blocks, options.block_size),
      allocator_(options.num_blocks,
                 [this](int32_t block) { cache_.Forget(block); }) {
  CHECK_GT(block_size_, 0);
}

std::vector<PrefixCache::Hit> KvBlocks::FindPrefix(const Sequence& s) const {
  std::vector<PrefixCache::Hit> hits;
  if (!prefix_caching_ || !MayReadCache(s) || cache_.size() == 0) return hits;
  const std::span<const Token> tokens(s.tokens);
  PrefixCache::Link link;
  for (int64_t i = 0; i < (s.num_tokens() - 1) / block_size_; ++i) {
    const auto hit =
        cache_.Lookup(DomainOf(s, i), link,
                      tokens.subspan(static_cast<size_t>(i * block_size_),
                                     static_cast<size_t>(block_size_)));
    if (!hit.has_value()) break;
    hits.push_back(*hit);
    link = hit->link;
  }
  return hits;
}

const KvDomain& KvBlocks::DomainOf(const Sequence& s, int64_t block) const {
  return s.entry->request.DomainAt((block + 1) * block_size_ - 1);
}

int64_t KvBlocks::CountUnused(std::span<const PrefixCache::Hit> hits) const {
  return std::ranges::count_if(hits, [this](const PrefixCache::Hit& hit) {
    return allocator_.ref_count(hit.block) == 0;
  });
}

void KvBlocks::AdoptPrefix(std::span<const PrefixCache::Hit> hits,
                           Sequence* s) {
  CHECK(s->blocks.empty());
  for (const PrefixCache::Hit& hit : hits) {
    allocator_.AddRef(hit.block);
    s->blocks.push_back(hit.block);
    s->prefix_link = hit.link;
  }
  s->num_registered = static_cast<int64_t>(hits.size());
  s->num_computed = s->num_registered * block_size_;
}

bool KvBlocks::Reserve(int64_t end, Sequence* s,
                       std::optional<BlockCopy>* copy) {
  const size_t first = static_cast<size_t>(s->num_computed / block_size_);
  if (!copy->has_value() && first < s->blocks.size()) {
    const int32_t block = s->blocks[first];
    // Copies of this step read the block before anybody writes it, so they do
    // not count as sharers.
    if (allocator_.ref_count(block) - CountCopiesFrom(block) > 1) {
      const std::optional<int32_t> fresh = allocator_.Allocate();
      if (!fresh.has_value()) return false;
      copy_sources_.push_back(block);  // with the reference that `s` had
      s->blocks[first] = *fresh;
      *copy = BlockCopy{block, *fresh};
    }
  }
  const size_t needed = static_cast<size_t>(BlocksFor(end));
  while (s->blocks.size() < needed) {
    const std::optional<int32_t> fresh = allocator_.Allocate();
    if (!fresh.has_value()) return false;
    s->blocks.push_back(*fresh);
  }
  return true;
}

void KvBlocks::Fork(const Sequence& from, Sequence* to) {
  CHECK(to->blocks.empty());
  for (const int32_t block : from.blocks) allocator_.AddRef(block);
  to->blocks = from.blocks;
  to->num_computed = from.num_computed;
  to->num_registered = from.num_registered;
  to->prefix_link = from.prefix_link;
}

void KvBlocks::Register(Sequence* s) {
  if (!prefix_caching_ || !s->entry->request.use_prefix_cache) return;
  const std::span<const Token> tokens(s->tokens);
  for (; s->num_registered < s->num_computed / block_size_;
       ++s->num_registered) {
    const auto block_tokens =
        tokens.subspan(static_cast<size_t>(s->num_registered * block_size_),
                       static_cast<size_t>(block_size_));
    const KvDomain& domain = DomainOf(*s, s->num_registered);
    int32_t& block = s->blocks[static_cast<size_t>(s->num_registered)];
    if (const auto hit = cache_.Lookup(domain, s->prefix_link, block_tokens)) {
      // The same tokens behind the same prefix: the same bits. Keep one.
      if (hit->block != block) {
        allocator_.AddRef(hit->block);
        allocator_.Release(block);
        block = hit->block;
      }
      s->prefix_link = hit->link;
      continue;
    }
    if (allocator_.is_remembered(block)) {
      // Behind another chain: its parent there was given away and came again.
      cache_.Forget(block);
    }
    std::optional<int32_t> displaced;
    s->prefix_link =
        cache_.Insert(domain, s->prefix_link, block_tokens, block, &displaced);
    if (displaced.has_value()) allocator_.SetRemembered(*displaced, false);
    allocator_.SetRemembered(block, true);
  }
}

void KvBlocks::Release(Sequence* s) {
  // Last block first: a chain is forgotten from its end.
  for (auto it = s->blocks.rbegin(); it != s->blocks.rend(); ++it) {
    allocator_.Release(*it);
  }
  s->blocks.clear();
  s->num_computed = 0;
  s->num_registered = 0;
  s->prefix_link = {};
}

void KvBlocks::EndStep() {
  for (const int32_t block : copy_sources_) allocator_.Release(block);
  copy_sources_.clear();
}

int64_t KvBlocks::CountCopiesFrom(int32_t block) const {
  return std::ranges::count(copy_sources_, block);
}

void KvBlocks::CheckInvariants(
    std::span<const Sequence* const> sequences) const {
  allocator_.CheckInvariants();
  std::vector<int32_t> refs(static_cast<size_t>(allocator_.num_blocks()));
  for (const int32_t block : copy_sources_) ++refs[static_cast<size_t>(block)];
  for (const Sequence* s : sequences) {
    for (const int32_t block : s->blocks) ++refs[static_cast<size_t>(block)];
    CHECK_LE(s->num_computed,
             static_cast<int64_t>(s->blocks.size()) * block_size_);
    CHECK_LE(s->num_registered * block_size_, s->num_computed);
  }
  int64_t remembered = 0;
  for (int32_t b = 0; b < allocator_.num_blocks(); ++b) {
    CHECK_EQ(refs[static_cast<size_t>(b)], allocator_.ref_count(b));
    remembered += allocator_.is_remembered(b) ? 1 : 0;
  }
  CHECK_EQ(remembered, cache_.size());
}

}  // namespace lorikeet
