// cuBLASLt is column-major: a row-major y [rows, out] is its D [out, rows], W
// its A (transposed) and x its B.

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
  const auto [rows, out, k, x_stride, w_stride, y_stride, has_bias] = shape;
  auto plan = std::make_unique<Plan>();
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const cublasLtEpilogue_t epilogue =
      has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  RETURN_IF_ERROR(
      ToStatus(cublasLtMatmulDescCreate(&plan->description, CUBLAS_COMPUTE_32F,
                                        CUDA_R_32F),
               "a description"));
  RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescSetAttribute(
                               plan->description, CUBLASLT_MATMUL_DESC_TRANSA,
                               &transposed, sizeof transposed),
                           "transposing"));
  RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescSetAttribute(
                               plan->description, CUBLASLT_MATMUL_DESC_EPILOGUE,
                               &epilogue, sizeof epilogue),
                           "the epilogue"));
  const auto unsigned_of = [](int64_t n) { return static_cast<uint64_t>(n); };
  RETURN_IF_ERROR(
      ToStatus(cublasLtMatrixLayoutCreate(&plan->w, CUDA_R_16BF, unsigned_of(k),
                                          unsigned_of(out), w_stride),
               "the layout of W"));
  RETURN_IF_ERROR(
      ToStatus(cublasLtMatrixLayoutCreate(&plan->x, CUDA_R_16BF, unsigned_of(k),
                                          unsigned_of(rows), x_stride),
               "the layout of x"));
  RETURN_IF_ERROR(ToStatus(
      cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, unsigned_of(out),
                                 unsigned_of(rows), y_stride),
      "the layout of y"));
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
                                            rows, " x ", out, " x ", k));
  }
  plan->algorithm = result.algo;
  plan->workspace_bytes = result.workspaceSize;
  known = std::move(plan);
  return known.get();
}

absl::Status Matmul::Run(Rows<const Bf16> x, Rows<const Bf16> w,
                         const float* bias, Rows<float> y,
                         cudaStream_t stream) {
  const Shape shape(x.rows, w.rows, RoundUp(x.cols, kVectorBf16), x.stride,
                    w.stride, y.stride, bias != nullptr);
  ASSIGN_OR_RETURN(Plan * plan, FindPlan(shape));
  LaunchRecorder* const recorder = LaunchRecorder::Of(stream);
  if (recorder == nullptr) {
    return ToStatus(Enqueue(*plan, x.data, w.data, bias, y.data, stream),
                    "a product");
  }
  recorder->Record(
      [=, this, x = x.data, w = w.data, y = y.data](cudaStream_t now) {
        const cublasStatus_t status = Enqueue(*plan, x, w, bias, y, now);
        return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
      },
      plan, x.data, w.data, bias, y.data);
  return absl::OkStatus();
}

cublasStatus_t Matmul::Enqueue(const Plan& plan, const Bf16* x, const Bf16* w,
                               const float* bias, float* y,
                               cudaStream_t stream) {
  if (bias != nullptr) {
    const cublasStatus_t status = cublasLtMatmulDescSetAttribute(
        plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
        sizeof bias);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  const float one = 1, zero = 0;
  return cublasLtMatmul(handle_, plan.description, &one, w, plan.w, x, plan.x,
                        &zero, y, plan.y, y, plan.y, &plan.algorithm,
                        workspace_.data(), plan.workspace_bytes, stream);
}

}  // namespace lorikeet::cuda
