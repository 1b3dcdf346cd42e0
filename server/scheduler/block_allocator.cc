#include "server/scheduler/block_allocator.h"

#include <utility>

#include "base/check.h"

namespace lorikeet {

BlockAllocator::BlockAllocator(int64_t num_blocks,
                               std::function<void(int32_t)> forget)
    : forget_(std::move(forget)) {
  CHECK(num_blocks > 0 && num_blocks <= INT32_MAX);
  blocks_.resize(static_cast<size_t>(num_blocks));
  for (int64_t i = 0; i < num_blocks; ++i) {
    PushBack(&free_, static_cast<int32_t>(i));
  }
  num_free_ = num_blocks;
}

std::optional<int32_t> BlockAllocator::Allocate() {
  int32_t block = free_.first;
  if (block >= 0) {
    Unlink(&free_, block);
    --num_free_;
  } else if (cached_.first >= 0) {
    block = cached_.first;
    Unlink(&cached_, block);
    --num_cached_;
    at(block).remembered = false;
    forget_(block);
  } else {
    return std::nullopt;
  }
  at(block).refs = 1;
  return block;
}

void BlockAllocator::AddRef(int32_t block) {
  Block& b = at(block);
  if (b.refs == 0) {
    CHECK(b.remembered);
    Unlink(&cached_, block);
    --num_cached_;
  }
  ++b.refs;
}

void BlockAllocator::Release(int32_t block) {
  Block& b = at(block);
  CHECK(b.refs > 0);
  if (--b.refs > 0) return;
  if (b.remembered) {
    PushBack(&cached_, block);
    ++num_cached_;
  } else {
    PushBack(&free_, block);
    ++num_free_;
  }
}

void BlockAllocator::SetRemembered(int32_t block, bool remembered) {
  Block& b = at(block);
  if (b.remembered == remembered) return;
  b.remembered = remembered;
  if (b.refs > 0) return;
  CHECK(!remembered);  // A free block has no content worth remembering.
  Unlink(&cached_, block);
  --num_cached_;
  PushBack(&free_, block);
  ++num_free_;
}

int64_t BlockAllocator::FreeCached() {
  const int64_t count = num_cached_;
  while (cached_.first >= 0) {
    const int32_t block = cached_.first;
    SetRemembered(block, false);
    forget_(block);
  }
  return count;
}

void BlockAllocator::PushBack(List* list, int32_t block) {
  Block& b = at(block);
  b.previous = list->last;
  b.next = -1;
  if (list->last >= 0) {
    at(list->last).next = block;
  } else {
    list->first = block;
  }
  list->last = block;
}

void BlockAllocator::Unlink(List* list, int32_t block) {
  Block& b = at(block);
  (b.previous >= 0 ? at(b.previous).next : list->first) = b.next;
  (b.next >= 0 ? at(b.next).previous : list->last) = b.previous;
  b.previous = b.next = -1;
}

int64_t BlockAllocator::CheckList(const List& list, bool remembered) const {
  int64_t count = 0;
  int32_t previous = -1;
  for (int32_t b = list.first; b >= 0; b = at(b).next) {
    CHECK_EQ(at(b).refs, 0);
    CHECK_EQ(at(b).remembered, remembered);
    CHECK_EQ(at(b).previous, previous);
    previous = b;
    ++count;
    CHECK_LE(count, num_blocks());
  }
  CHECK_EQ(list.last, previous);
  return count;
}

void BlockAllocator::CheckInvariants() const {
  CHECK_EQ(CheckList(free_, false), num_free_);
  CHECK_EQ(CheckList(cached_, true), num_cached_);
  int64_t used = 0;
  for (const Block& b : blocks_) used += b.refs > 0 ? 1 : 0;
  CHECK_EQ(used, num_used());
}

}  // namespace lorikeet
