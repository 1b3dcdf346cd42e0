// Weights and adapters as the device keeps them: bf16, rows padded with zeros
// to 16 bytes. f16 and f32 are rounded.
//
// A Packer brings them there over a stream of its own, so that a load does not
// wait for a step. Packer: thread-safe. The others: immutable.

#ifndef LORIKEET_KERNELS_CUDA_PACKED_H_
#define LORIKEET_KERNELS_CUDA_PACKED_H_

#include <cuda_runtime.h>

#include <memory>

#include "base/mutex.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/kernels.h"
#include "kernels/ops.h"

namespace lorikeet::cuda {

class CudaWeight final : public PackedWeight {
 public:
  CudaWeight(int64_t out_dim, int64_t in_dim, DeviceBuffer buffer)
      : out_dim_(out_dim), in_dim_(in_dim), buffer_(std::move(buffer)) {}
  int64_t out_dim() const override { return out_dim_; }
  int64_t in_dim() const override { return in_dim_; }
  DType dtype() const override { return DType::kBF16; }
  int64_t size_bytes() const override { return buffer_.size_bytes(); }

  Rows<const Bf16> rows() const { return rows(0, out_dim_); }
  Rows<const Bf16> rows(int64_t begin, int64_t end) const {
    return RowsOf(begin, end);
  }
  // Of a weight that is being packed or merged.
  Rows<Bf16> mutable_rows(int64_t begin, int64_t end) {
    return RowsOf(begin, end);
  }

 private:
  Rows<Bf16> RowsOf(int64_t begin, int64_t end) const {
    const int64_t stride = RoundUp(in_dim_, kVectorBf16);
    return {buffer_.as<Bf16>() + begin * stride, end - begin, in_dim_, stride};
  }

  const int64_t out_dim_, in_dim_;
  DeviceBuffer buffer_;
};

class CudaLora final : public PackedLora {
 public:
  CudaLora(int64_t rank, int64_t in_dim, int64_t out_dim, DeviceBuffer buffer)
      : rank_(rank),
        in_dim_(in_dim),
        out_dim_(out_dim),
        buffer_(std::move(buffer)) {}
  int64_t rank() const override { return rank_; }
  int64_t in_dim() const override { return in_dim_; }
  int64_t out_dim() const override { return out_dim_; }
  int64_t size_bytes() const override { return buffer_.size_bytes(); }

  int64_t a_stride() const { return RoundUp(in_dim_, kVectorBf16); }
  int64_t b_stride() const { return RoundUp(rank_, kVectorBf16); }
  const Bf16* a() const { return buffer_.as<Bf16>(); }
  const Bf16* b() const { return a() + rank_ * a_stride(); }

 private:
  const int64_t rank_, in_dim_, out_dim_;
  DeviceBuffer buffer_;  // A, then B
};

class Packer {
 public:
  // Errors: INTERNAL, RESOURCE_EXHAUSTED.
  // `pool` outlives it and what it packs.
  static absl::StatusOr<std::unique_ptr<Packer>> Create(MemoryPool& pool);
  ~Packer();

  // Errors: RESOURCE_EXHAUSTED if the device has no room; INTERNAL.
  absl::StatusOr<std::unique_ptr<CudaWeight>> PackWeight(ConstTensor w);
  // Its content is not defined.
  absl::StatusOr<std::unique_ptr<CudaWeight>> NewWeight(int64_t out_dim,
                                                        int64_t in_dim);
  absl::StatusOr<std::unique_ptr<CudaLora>> PackLora(ConstTensor a,
                                                     ConstTensor b);

 private:
  Packer(MemoryPool& pool, cudaStream_t stream)
      : pool_(pool), stream_(stream) {}
  // Writes `from` to `to` with rows of `stride`; complete when it returns.
  absl::Status Write(ConstTensor from, Bf16* to, int64_t stride);

  MemoryPool& pool_;
  const cudaStream_t stream_;
  Mutex mu_;
  PinnedBuffer staging_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_PACKED_H_
