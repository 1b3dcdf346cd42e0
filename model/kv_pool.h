// A KvPool owns the memory of all KV blocks of all layers.
//
// Which sequence has which block is the scheduler's business; block ids are
// [0, num_blocks). Memory is touched on first use only. Engine thread only.

#ifndef LORIKEET_MODEL_KV_POOL_H_
#define LORIKEET_MODEL_KV_POOL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/paged_kv.h"
#include "model/config.h"

namespace lorikeet {

// Tokens in a block: a key tile of the attention kernels.
inline constexpr int64_t kKvBlockSize = 32;

class KvPool {
 public:
  // Reserves address space for `num_blocks` blocks (not memory: pages come
  // with use); if `ops` is not on the host, its memory.
  // Errors: RESOURCE_EXHAUSTED naming the bytes.
  static absl::StatusOr<KvPool> Create(const ModelConfig& config, DType dtype,
                                       int64_t num_blocks, Ops* ops = nullptr);
  // Bytes of one block over all layers, K and V.
  static int64_t BlockBytes(const ModelConfig& config, DType dtype);

  KvPool(KvPool&&) noexcept;
  KvPool& operator=(KvPool&&) = delete;
  ~KvPool();

  int64_t num_blocks() const { return num_blocks_; }
  DType dtype() const { return dtype_; }
  // The K and V of one layer.
  PagedKvView layer(int64_t i) const;

 private:
  KvPool() = default;
  ModelConfig config_;
  DType dtype_ = DType::kF32;
  int64_t num_blocks_ = 0;
  void* memory_ = nullptr;
  size_t size_bytes_ = 0;
  std::unique_ptr<Memory> device_;  // owns memory_ if not null
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_KV_POOL_H_
