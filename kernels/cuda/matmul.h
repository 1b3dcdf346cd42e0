// A Matmul computes y = x W^T + bias with cuBLASLt: bf16 in, f32 accumulation
// and result.
//
// The library's algorithm is asked for once per shape and kept. Its order of
// summation is its own, so a row's bits may depend on the number of rows.
// Engine thread only.

#ifndef LORIKEET_KERNELS_CUDA_MATMUL_H_
#define LORIKEET_KERNELS_CUDA_MATMUL_H_

#include <cublasLt.h>

#include <map>
#include <memory>
#include <tuple>

#include "absl/status/statusor.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

class Matmul {
 public:
  // Errors: RESOURCE_EXHAUSTED, INTERNAL.
  static absl::StatusOr<std::unique_ptr<Matmul>> Create(MemoryPool& pool);
  ~Matmul();

  // x [rows, k], w [out, k], y [rows, out]. Pointers and rows are aligned to 16
  // bytes; what is beyond k up to the stride is 0 in both. bias [out] or null.
  absl::Status Run(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
                   Rows<float> y, cudaStream_t stream);

 private:
  // rows, out, k, strides of x, w and y, has a bias.
  using Shape =
      std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool>;
  struct Plan;

  explicit Matmul(cublasLtHandle_t handle);
  absl::StatusOr<Plan*> FindPlan(const Shape& shape);
  cublasStatus_t Enqueue(const Plan& plan, const Bf16* x, const Bf16* w,
                         const float* bias, float* y, cudaStream_t stream);

  cublasLtHandle_t handle_;
  DeviceBuffer workspace_;
  std::map<Shape, std::unique_ptr<Plan>> plans_;
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_MATMUL_H_
