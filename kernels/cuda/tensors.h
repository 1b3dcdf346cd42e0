// Tensors in device memory as the launchers take them.

#ifndef LORIKEET_KERNELS_CUDA_TENSORS_H_
#define LORIKEET_KERNELS_CUDA_TENSORS_H_

#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/kernels.h"
#include "kernels/paged_kv.h"
#include "kernels/tensor.h"

namespace lorikeet::cuda {

// REQUIRES: f32.
Rows<float> RowsOf(const Tensor& t);
Rows<const float> RowsOf(const ConstTensor& t);
KvCache CacheOf(const PagedKvView& kv);

inline CudaStream& Of(Stream& stream) {
  return static_cast<CudaStream&>(stream);
}

// x rounded to bf16 in scratch memory, rows padded with zeros to 16 bytes;
// without data if there is no memory, which is the stream's error then.
Rows<const Bf16> RoundedToBf16(ConstTensor x, CudaStream& stream);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_TENSORS_H_
