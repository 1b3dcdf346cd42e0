// cuBLASLt is column-major: a row-major y [rows, cols] is its D [cols, rows], W
// its A (transposed, or on the way back as it is) and x its B.

#include "kernels/cuda/matmul.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace lorikeet::cuda {
namespace {

// What NVIDIA recommends for Hopper.
constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt: ", what, ": status ", static_cast<int>(status)));
}

}  // namespace

struct Matmul::Plan {
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  size_t workspace_bytes = 0;

  ~Plan() {
    if (description != nullptr) cublasLtMatmulDescDestroy(description);
    if (w != nullptr) cublasLtMatrixLayoutDestroy(w);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
    if (y != nullptr) cublasLtMatrixLayoutDestroy(y);
  }
};

Matmul::Matmul(cublasLtHandle_t handle) : handle_(handle) {}

Matmul::~Matmul() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

absl::StatusOr<std::unique_ptr<Matmul>> Matmul::Create(MemoryPool& pool) {
  cublasLtHandle_t handle = nullptr;
  RETURN_IF_ERROR(ToStatus(cublasLtCreate(&handle), "a handle"));
  std::unique_ptr<Matmul> matmul(new Matmul(handle));
  ASSIGN_OR_RETURN(matmul->workspace_,
                   DeviceBuffer::Allocate(pool, kWorkspaceBytes));
  return matmul;
}

absl::StatusOr<Matmul::Plan*> Matmul::FindPlan(const Shape& shape) {
  std::unique_ptr<Plan>& known = plans_[shape];
  if (known != nullptr) return known.get();
  auto plan = std::make_unique<Plan>();
  const cublasOperation_t operation = shape.is_back ? CUBLAS_OP_N : CUBLAS_OP_T;
  const cublasLtEpilogue_t epilogue =
      shape.has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  RETURN_IF_ERROR(
      ToStatus(cublasLtMatmulDescCreate(&plan->description, CUBLAS_COMPUTE_32F,
                                        CUDA_R_32F),
               "a description"));
  RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescSetAttribute(
                               plan->description, CUBLASLT_MATMUL_DESC_TRANSA,
                               &operation, sizeof operation),
                           "transposing"));
  RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescSetAttribute(
                               plan->description, CUBLASLT_MATMUL_DESC_EPILOGUE,
                               &epilogue, sizeof epilogue),
                           "the epilogue"));
  const auto layout = [](cublasLtMatrixLayout_t* to, cudaDataType_t type,
                         int64_t rows, int64_t cols, int64_t stride) {
    return ToStatus(
        cublasLtMatrixLayoutCreate(to, type, static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(cols), stride),
        "a layout");
  };
  RETURN_IF_ERROR(layout(&plan->w, CUDA_R_16BF,
                         shape.is_back ? shape.cols : shape.k,
                         shape.is_back ? shape.k : shape.cols, shape.w_stride));
  RETURN_IF_ERROR(
      layout(&plan->x, CUDA_R_16BF, shape.k, shape.rows, shape.x_stride));
  RETURN_IF_ERROR(
      layout(&plan->y, CUDA_R_32F, shape.cols, shape.rows, shape.y_stride));
  cublasLtMatmulPreference_t preference = nullptr;
  RETURN_IF_ERROR(
      ToStatus(cublasLtMatmulPreferenceCreate(&preference), "a preference"));
  const uint64_t workspace_bytes = static_cast<uint64_t>(kWorkspaceBytes);
  cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
      sizeof workspace_bytes);
  cublasLtMatmulHeuristicResult_t result = {};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan->description, plan->w, plan->x, plan->y, plan->y,
      preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  RETURN_IF_ERROR(ToStatus(status, "the choice of an algorithm"));
  if (found == 0) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for ",
                                            shape.rows, " x ", shape.cols,
                                            " x ", shape.k));
  }
  plan->algorithm = result.algo;
  plan->workspace_bytes = result.workspaceSize;
  known = std::move(plan);
  return known.get();
}

void Matmul::Multiply(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
                      Rows<float> y, CudaStream& stream) {
  const Shape shape{.rows = x.rows,
                    .cols = w.rows,
                    .k = RoundUp(x.cols, kVectorBf16),
                    .x_stride = x.stride,
                    .w_stride = w.stride,
                    .has_bias = bias != nullptr};
  Run(shape, x.data, w.data, bias, /*accumulate=*/false, y, stream);
}

void Matmul::MultiplyBack(Rows<const Bf16> dy, Rows<const Bf16> w,
                          bool accumulate, Rows<float> dx, CudaStream& stream) {
  const Shape shape{.rows = dy.rows,
                    .cols = w.cols,
                    .k = w.rows,
                    .x_stride = dy.stride,
                    .w_stride = w.stride,
                    .is_back = true};
  Run(shape, dy.data, w.data, nullptr, accumulate, dx, stream);
}

void Matmul::Run(const Shape& shape, const Bf16* x, const Bf16* w,
                 const float* bias, bool accumulate, Rows<float> y,
                 CudaStream& stream) {
  const bool is_aligned =
      reinterpret_cast<uintptr_t>(y.data) % kVectorBytes == 0 &&
      y.stride % 4 == 0;
  CudaStream::Scope scope(stream);
  Rows<float> result = y;
  if (!is_aligned) {
    result.stride = RoundUp(y.cols, 4);
    result.data = stream.ScratchOf<float>(y.rows * result.stride);
  }
  if (!stream.ok()) return;
  Shape of_result = shape;
  of_result.y_stride = result.stride;
  const absl::Status status =
      RunAligned(of_result, x, w, bias, accumulate && is_aligned, result.data,
                 stream.get());
  if (!status.ok()) return stream.Fail(status);
  if (is_aligned) return;
  stream.Check(accumulate ? ResidualAdd(result, y, stream.get())
                          : GatherRows(result, nullptr, y, stream.get()),
               "copying a product");
}

absl::Status Matmul::RunAligned(const Shape& shape, const Bf16* x,
                                const Bf16* w, const float* bias,
                                bool accumulate, float* y,
                                cudaStream_t stream) {
  ASSIGN_OR_RETURN(Plan * plan, FindPlan(shape));
  LaunchRecorder* const recorder = LaunchRecorder::Of(stream);
  if (recorder == nullptr) {
    return ToStatus(Enqueue(*plan, x, w, bias, accumulate, y, stream),
                    "a product");
  }
  recorder->Record(
      [=, this](cudaStream_t now) {
        const cublasStatus_t status =
            Enqueue(*plan, x, w, bias, accumulate, y, now);
        return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
      },
      plan, x, w, bias, accumulate, y);
  return absl::OkStatus();
}

cublasStatus_t Matmul::Enqueue(const Plan& plan, const Bf16* x, const Bf16* w,
                               const float* bias, bool accumulate, float* y,
                               cudaStream_t stream) {
  if (bias != nullptr) {
    const cublasStatus_t status = cublasLtMatmulDescSetAttribute(
        plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
        sizeof bias);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  const float one = 1, add = accumulate ? 1 : 0;
  return cublasLtMatmul(handle_, plan.description, &one, w, plan.w, x, plan.x,
                        &add, y, plan.y, y, plan.y, &plan.algorithm,
                        workspace_.data(), plan.workspace_bytes, stream);
}

}  // namespace lorikeet::cuda
