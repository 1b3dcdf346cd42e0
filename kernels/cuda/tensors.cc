#include "kernels/cuda/tensors.h"

#include "base/check.h"

namespace lorikeet::cuda {

Rows<float> RowsOf(const Tensor& t) {
  CHECK(t.dtype == DType::kF32);
  return {static_cast<float*>(t.data), t.rows, t.cols, t.stride};
}

Rows<const float> RowsOf(const ConstTensor& t) {
  CHECK(t.dtype == DType::kF32);
  return {static_cast<const float*>(t.data), t.rows, t.cols, t.stride};
}

KvCache CacheOf(const PagedKvView& kv) {
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16);
  return {.k = kv.k,
          .v = kv.v,
          .is_bf16 = kv.dtype == DType::kBF16,
          .block_size = static_cast<int32_t>(kv.block_size),
          .block_stride = kv.block_stride,
          .kv_heads = static_cast<int32_t>(kv.kv_heads),
          .head_dim = static_cast<int32_t>(kv.head_dim)};
}

Rows<const Bf16> RoundedToBf16(ConstTensor x, CudaStream& stream) {
  const int64_t stride = RoundUp(x.cols, kVectorBf16);
  const Rows<Bf16> rounded{stream.ScratchOf<Bf16>(x.rows * stride), x.rows,
                           x.cols, stride};
  if (rounded.data == nullptr) return rounded;
  stream.Check(ToBf16(RowsOf(x), rounded, stream.get()), "rounding to bf16");
  return rounded;
}

}  // namespace lorikeet::cuda
