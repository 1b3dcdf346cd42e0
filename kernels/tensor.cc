#include "kernels/tensor.h"

#include <sys/mman.h>

#include <atomic>

namespace lorikeet {
namespace {

constexpr size_t kLineBytes = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;

// Where memory comes from concerns the whole process, as malloc does.
std::atomic<bool> huge_pages{false};

}  // namespace

void SetHugePages(bool wanted) { huge_pages = wanted; }

Buffer::Buffer(int64_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  const size_t size = static_cast<size_t>(size_bytes);
  const bool huge = huge_pages && size >= kHugePageBytes;
  const size_t alignment = huge ? kHugePageBytes : kLineBytes;
  const size_t rounded = (size + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<char*>(std::aligned_alloc(alignment, rounded)));
  CHECK(data_ != nullptr);
  if (huge) madvise(data_.get(), rounded, MADV_HUGEPAGE);
  std::memset(data_.get(), 0, rounded);
}

}  // namespace lorikeet
