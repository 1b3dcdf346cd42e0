// A BlockAllocator hands out KV blocks and counts who uses each.
//
// A block is free, used (count > 0), or cached: nobody uses it but the prefix
// cache remembers its content. Cached blocks are taken, least recently used
// first, when no block is free. Allocate never takes a used block.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_SCHEDULER_BLOCK_ALLOCATOR_H_
#define LORIKEET_SERVER_SCHEDULER_BLOCK_ALLOCATOR_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace lorikeet {

class BlockAllocator {
 public:
  // `forget` is called when a cached block is given away: what the cache
  // remembers of it is no longer true. REQUIRES: num_blocks > 0.
  BlockAllocator(int64_t num_blocks, std::function<void(int32_t)> forget);

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  // Blocks that Allocate could hand out now, cached ones included.
  int64_t num_available() const { return num_free_ + num_cached_; }
  int64_t num_free() const { return num_free_; }
  int64_t num_cached() const { return num_cached_; }
  int64_t num_used() const { return num_blocks() - num_available(); }
  int32_t ref_count(int32_t block) const { return at(block).refs; }
  bool is_remembered(int32_t block) const { return at(block).remembered; }

  // Returns a block with one reference, or nullopt if all are used.
  std::optional<int32_t> Allocate();
  // Adds a reference to a used or a cached block.
  void AddRef(int32_t block);
  // Drops a reference. The last one makes the block cached or free.
  void Release(int32_t block);
  // Says whether the prefix cache remembers the content of `block`.
  void SetRemembered(int32_t block, bool remembered);
  // Frees every cached block; returns how many.
  int64_t FreeCached();

  // CHECKs that the lists and counts agree.
  void CheckInvariants() const;

 private:
  // Free and cached blocks are linked in two lists through next and previous.
  struct Block {
    int32_t refs = 0;
    bool remembered = false;
    int32_t previous = -1;
    int32_t next = -1;
  };
  struct List {
    int32_t first = -1;
    int32_t last = -1;
  };

  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& at(int32_t block) const {
    return blocks_[static_cast<size_t>(block)];
  }
  void PushBack(List* list, int32_t block);
  void Unlink(List* list, int32_t block);
  int64_t CheckList(const List& list, bool remembered) const;

  const std::function<void(int32_t)> forget_;
  std::vector<Block> blocks_;
  List free_;
  List cached_;  // least recently used first
  int64_t num_free_ = 0;
  int64_t num_cached_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_BLOCK_ALLOCATOR_H_
