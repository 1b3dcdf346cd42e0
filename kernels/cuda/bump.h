// A Bump gives out pieces of memory one after the other and takes them back in
// the opposite order, down to a mark.
//
// It grows by chunks, each twice the one before; chunks are kept. A piece never
// moves. Thread-compatible.

#ifndef LORIKEET_KERNELS_CUDA_BUMP_H_
#define LORIKEET_KERNELS_CUDA_BUMP_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status.h"
#include "kernels/cuda/device_buffer.h"

namespace lorikeet::cuda {

template <typename ChunkBuffer>
class Bump {
 public:
  using Allocator =
      std::function<absl::StatusOr<ChunkBuffer>(int64_t size_bytes)>;
  explicit Bump(Allocator allocate) : allocate_(std::move(allocate)) {}

  // A place up to which pieces are in use.
  struct Mark {
    size_t chunk = 0;
    int64_t offset = 0;
  };

  Mark mark() const { return at_; }
  void Release(Mark mark) { at_ = mark; }

  // Aligned to 256 bytes. Errors: RESOURCE_EXHAUSTED.
  absl::StatusOr<char*> Take(int64_t size_bytes) {
    const int64_t size =
        (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
    while (at_.chunk < chunks_.size() &&
           at_.offset + size > chunks_[at_.chunk].size_bytes()) {
      ++at_.chunk;
      at_.offset = 0;
    }
    if (at_.chunk == chunks_.size()) {
      const int64_t last =
          chunks_.empty() ? kFirstChunk / 2 : chunks_.back().size_bytes();
      ASSIGN_OR_RETURN(ChunkBuffer chunk, allocate_(std::max(size, 2 * last)));
      chunks_.push_back(std::move(chunk));
    }
    char* const piece = chunks_[at_.chunk].data() + at_.offset;
    at_.offset += size;
    return piece;
  }

  static constexpr int64_t kAlignment = 256;

 private:
  static constexpr int64_t kFirstChunk = int64_t{1} << 20;

  const Allocator allocate_;
  std::vector<ChunkBuffer> chunks_;
  Mark at_;
};

using DeviceBump = Bump<DeviceBuffer>;
using PinnedBump = Bump<PinnedBuffer>;

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_BUMP_H_
