// The pool is one anonymous mapping: for each layer all blocks of K, then all
// of V. It reserves addresses alone; the system gives a page at first touch.

#include "model/kv_pool.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// Elements of one block of K (or V) of one layer.
int64_t BlockElements(const ModelConfig& config) {
  return config.num_kv_heads * kKvBlockSize * config.head_dim;
}

}  // namespace

int64_t KvPool::BlockBytes(const ModelConfig& config, DType dtype) {
  return config.num_layers * 2 * BlockElements(config) * SizeBytes(dtype);
}

absl::StatusOr<KvPool> KvPool::Create(const ModelConfig& config, DType dtype,
                                      int64_t num_blocks, Ops* ops) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  CHECK(num_blocks >= 1);
  const int64_t block_bytes = BlockBytes(config, dtype);
  if (num_blocks > std::numeric_limits<int32_t>::max() ||
      num_blocks > std::numeric_limits<int64_t>::max() / block_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the KV cache would have ", num_blocks, " blocks of ",
        HumanBytes(static_cast<uint64_t>(block_bytes)), ", too many"));
  }
  KvPool pool;
  pool.config_ = config;
  pool.dtype_ = dtype;
  pool.num_blocks_ = num_blocks;
  pool.size_bytes_ = static_cast<size_t>(num_blocks * block_bytes);
  if (ops != nullptr && !ops->is_on_host()) {
    ASSIGN_OR_RETURN(pool.device_,
                     ops->Allocate(static_cast<int64_t>(pool.size_bytes_)));
    pool.memory_ = pool.device_->data();
    return pool;
  }
  void* memory = ::mmap(nullptr, pool.size_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the KV cache of ", pool.size_bytes_, " bytes (",
                     HumanBytes(pool.size_bytes_),
                     ") cannot be reserved: ", std::strerror(errno)));
  }
  pool.memory_ = memory;
  return pool;
}

KvPool::KvPool(KvPool&& other) noexcept
    : config_(std::move(other.config_)),
      dtype_(other.dtype_),
      num_blocks_(std::exchange(other.num_blocks_, 0)),
      memory_(std::exchange(other.memory_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      device_(std::move(other.device_)) {}

KvPool::~KvPool() {
  if (memory_ != nullptr && device_ == nullptr) ::munmap(memory_, size_bytes_);
}

PagedKvView KvPool::layer(int64_t i) const {
  CHECK(i >= 0 && i < config_.num_layers && memory_ != nullptr);
  const int64_t half_bytes =
      num_blocks_ * BlockElements(config_) * SizeBytes(dtype_);
  PagedKvView view;
  view.k = static_cast<char*>(memory_) + 2 * i * half_bytes;
  view.v = static_cast<char*>(view.k) + half_bytes;
  view.dtype = dtype_;
  view.block_size = kKvBlockSize;
  view.block_stride = BlockElements(config_);
  view.kv_heads = config_.num_kv_heads;
  view.head_dim = config_.head_dim;
  return view;
}

}  // namespace lorikeet
