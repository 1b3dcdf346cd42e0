// A Matmul computes y = x W^T + bias and, for the way back, dx = dy W with
// cuBLASLt: bf16 in, f32 accumulation and result.
//
// The library's algorithm is asked for once per shape and kept. Its order of
// summation is its own, so a row's bits may depend on the number of rows.
// Engine thread only.

#ifndef LORIKEET_KERNELS_CUDA_MATMUL_H_
#define LORIKEET_KERNELS_CUDA_MATMUL_H_

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/device_buffer.h"
#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

class Matmul {
 public:
  // Errors: RESOURCE_EXHAUSTED, INTERNAL.
  static absl::StatusOr<std::unique_ptr<Matmul>> Create(MemoryPool& pool);
  ~Matmul();

  // y [rows, out] = x W^T + bias; x [rows, k], w [out, k], bias [out] or null.
  // Pointers and rows of x and w are aligned to 16 bytes; what is beyond k up
  // to the stride is 0 in both. y may lie anywhere. Errors are the stream's.
  void Multiply(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
                Rows<float> y, CudaStream& stream);
  // dx [rows, k] = dy W, or += with `accumulate`; dy [rows, out], w [out, k].
  void MultiplyBack(Rows<const Bf16> dy, Rows<const Bf16> w, bool accumulate,
                    Rows<float> dx, CudaStream& stream);

 private:
  // One product: [rows, cols] from sums over k.
  struct Shape {
    int64_t rows = 0, cols = 0, k = 0;
    int64_t x_stride = 0, w_stride = 0, y_stride = 0;
    bool is_back = false;
    bool has_bias = false;

    auto operator<=>(const Shape&) const = default;
  };
  struct Plan;

  explicit Matmul(cublasLtHandle_t handle);
  absl::StatusOr<Plan*> FindPlan(const Shape& shape);
  // y = x times w as `shape` says, or += with `accumulate`, wherever y lies.
  void Run(const Shape& shape, const Bf16* x, const Bf16* w, const float* bias,
           bool accumulate, Rows<float> y, CudaStream& stream);
  // REQUIRES: y is aligned as x and w.
  absl::Status RunAligned(const Shape& shape, const Bf16* x, const Bf16* w,
                          const float* bias, bool accumulate, float* y,
                          cudaStream_t stream);
  cublasStatus_t Enqueue(const Plan& plan, const Bf16* x, const Bf16* w,
                         const float* bias, bool accumulate, float* y,
                         cudaStream_t stream);

  cublasLtHandle_t handle_;
  DeviceBuffer workspace_;
  std::map<Shape, std::unique_ptr<Plan>> plans_;
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_MATMUL_H_
