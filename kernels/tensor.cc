#include "kernels/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace lorikeet {
namespace {

constexpr size_t kLineBytes = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;

std::atomic<bool> huge_pages{true};

constexpr size_t RoundUp(size_t value, size_t step) {
  return (value + step - 1) / step * step;
}

// Pages that begin at a huge page's boundary; they are zero.
std::shared_ptr<char> MapPages(size_t size) {
  const size_t rounded = RoundUp(size, kHugePageBytes);
  const size_t reserved = rounded + kHugePageBytes;
  void* const pages = mmap(nullptr, reserved, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(pages != MAP_FAILED);
  const size_t begin = reinterpret_cast<size_t>(pages);
  char* const aligned =
      static_cast<char*>(pages) + (RoundUp(begin, kHugePageBytes) - begin);
  if (huge_pages) madvise(aligned, rounded, MADV_HUGEPAGE);
  return std::shared_ptr<char>(
      aligned, [pages, reserved](char*) { munmap(pages, reserved); });
}

}  // namespace

void SetHugePages(bool wanted) { huge_pages = wanted; }

Buffer::Buffer(int64_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  const size_t size = RoundUp(static_cast<size_t>(size_bytes), kLineBytes);
  if (size >= kHugePageBytes) {
    data_ = MapPages(size);
    return;
  }
  char* const data = static_cast<char*>(std::aligned_alloc(kLineBytes, size));
  CHECK(data != nullptr);
  std::memset(data, 0, size);
  data_ = std::shared_ptr<char>(data, [](char* p) { std::free(p); });
}

Buffer Arena::Allocate(int64_t size_bytes) {
  const int64_t size = static_cast<int64_t>(
      RoundUp(static_cast<size_t>(size_bytes), kLineBytes));
  const MutexLock lock(&mutex_);
  if (used_ + size > size_) {
    size_ = std::max(chunk_bytes_, size);
    chunk_ = MapPages(static_cast<size_t>(size_));
    used_ = 0;
  }
  char* const data = chunk_.get() + used_;
  used_ += size;
  return Buffer(std::shared_ptr<char>(chunk_, data), size_bytes);
}

}  // namespace lorikeet
