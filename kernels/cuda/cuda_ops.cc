#include "kernels/cuda/cuda_ops.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/error.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

constexpr int kLeastComputeCapability = 80;  // bf16 mma, cp.async
constexpr int kLeastDriver = 13000;          // CUDA 13

absl::StatusOr<int> ComputeCapability() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("no GPU: ", cudaGetErrorString(error)));
  }
  int driver = 0;
  RETURN_IF_ERROR(ToStatus(cudaDriverGetVersion(&driver), "the driver"));
  if (driver < kLeastDriver) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver supports CUDA ", driver / 1000, ".",
                     driver % 1000 / 10, ", at least ", kLeastDriver / 1000,
                     ".0 is needed"));
  }
  int major = 0, minor = 0;
  RETURN_IF_ERROR(ToStatus(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0),
      "the device"));
  RETURN_IF_ERROR(ToStatus(
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0),
      "the device"));
  return major * 10 + minor;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaOps>> CudaOps::Create(
    const CudaOptions& options) {
  ASSIGN_OR_RETURN(const int capability, ComputeCapability());
  if (capability < kLeastComputeCapability) {
    return absl::FailedPreconditionError(
        absl::StrCat("the GPU is sm_", capability, ", at least sm_",
                     kLeastComputeCapability, " is needed"));
  }
  std::unique_ptr<CudaOps> ops(new CudaOps(options));
  ops->target_ = absl::StrCat("sm_", capability);
  ASSIGN_OR_RETURN(ops->pool_, MemoryPool::Create(options.memory_bytes));
  ASSIGN_OR_RETURN(ops->packer_, Packer::Create(*ops->pool_));
  ASSIGN_OR_RETURN(ops->merger_, Merger::Create(*ops->pool_));
  if (!options.batch_invariant) {
    ASSIGN_OR_RETURN(ops->matmul_, Matmul::Create(*ops->pool_));
  }
  return ops;
}

std::unique_ptr<Stream> CudaOps::NewStream() {
  absl::StatusOr<std::unique_ptr<CudaStream>> stream = CudaStream::Create(
      *pool_, [this](const absl::Status& s) { Fail(s); }, &graph_launches_);
  CHECK(stream.ok());
  return *std::move(stream);
}

absl::StatusOr<std::unique_ptr<Memory>> CudaOps::Allocate(int64_t size_bytes) {
  ASSIGN_OR_RETURN(DeviceBuffer buffer,
                   DeviceBuffer::Allocate(*pool_, size_bytes));
  return std::make_unique<CudaMemory>(std::move(buffer));
}

void CudaOps::CopyIn(const void* host, void* memory, int64_t size_bytes,
                     Stream& stream) {
  Of(stream).CopyIn(host, memory, size_bytes);
}

void CudaOps::CopyOut(const void* memory, void* host, int64_t size_bytes,
                      Stream& stream) {
  Of(stream).Download(memory, size_bytes, [=](const char* bytes) {
    std::memcpy(host, bytes, static_cast<size_t>(size_bytes));
  });
}

int64_t CudaOps::free_bytes() const { return pool_->free_bytes(); }

absl::Status CudaOps::status() const {
  MutexLock lock(&mu_);
  return status_;
}

void CudaOps::Fail(const absl::Status& status) const {
  if (!absl::IsInternal(status)) return;  // out of memory
  MutexLock lock(&mu_);
  status_.Update(status);
}

std::unique_ptr<PackedWeight> CudaOps::PackWeight(ConstTensor w, DType dtype) {
  CHECK(dtype != DType::kI8);
  absl::StatusOr<std::unique_ptr<CudaWeight>> packed = packer_->PackWeight(w);
  if (packed.ok()) return *std::move(packed);
  Fail(packed.status());
  return nullptr;
}

std::unique_ptr<PackedLora> CudaOps::PackLora(ConstTensor a, ConstTensor b) {
  absl::StatusOr<std::unique_ptr<CudaLora>> packed = packer_->PackLora(a, b);
  if (packed.ok()) return *std::move(packed);
  Fail(packed.status());
  return nullptr;
}

void CudaOps::MergeRows(const PackedWeight& w, std::span<const MergeTerm> terms,
                        int64_t row_begin, Tensor out) const {
  const absl::Status status =
      merger_->Run(static_cast<const CudaWeight&>(w), terms, row_begin, out);
  if (status.ok()) return;
  Fail(status);
  for (int64_t i = 0; i < out.rows; ++i) {
    std::fill_n(out.f32(i), out.cols, 0.0f);
  }
}

std::unique_ptr<PackedWeight> CudaOps::NewWeight(int64_t out_dim,
                                                 int64_t in_dim, DType) {
  absl::StatusOr<std::unique_ptr<CudaWeight>> weight =
      packer_->NewWeight(out_dim, in_dim);
  if (weight.ok()) return *std::move(weight);
  Fail(weight.status());
  return nullptr;
}

void CudaOps::Merge(const PackedWeight& w, std::span<const MergeTerm> terms,
                    const float* gain, int64_t row_begin, int64_t row_end,
                    PackedWeight& to, Stream& stream) {
  CHECK_EQ(to.out_dim(), w.out_dim());
  CHECK_EQ(to.in_dim(), w.in_dim());
  CHECK_LE(row_end, w.out_dim());
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const std::vector<MergeTermArgs> args = MergeArgsOf(terms, row_begin);
  const MergeTermArgs* const device_args = s.Upload(args);
  const float* device_gain = nullptr;
  if (gain != nullptr) {
    device_gain = s.Upload(std::span(gain + row_begin, gain + row_end));
  }
  if (!s.ok()) return;
  s.Check(cuda::MergeRows(
              static_cast<const CudaWeight&>(w).rows(row_begin, row_end),
              device_args, static_cast<int32_t>(args.size()), device_gain,
              static_cast<CudaWeight&>(to).mutable_rows(row_begin, row_end),
              s.get()),
          "a merge");
}

void CudaOps::Product(Rows<const Bf16> x, const PackedWeight& w,
                      const float* bias, Tensor y, CudaStream& stream) {
  CHECK_EQ(x.cols, w.in_dim());
  CHECK_EQ(y.cols, w.out_dim());
  const Rows<float> to = RowsOf(y);
  if (matmul_ == nullptr) {
    stream.Check(cuda::Gemm(x, static_cast<const CudaWeight&>(w).rows(), bias,
                            to, stream.get()),
                 "a product");
    return;
  }
  matmul_->Multiply(x, static_cast<const CudaWeight&>(w).rows(), bias, to,
                    stream);
}

void CudaOps::Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                   Tensor y, Stream& stream) {
  if (x.rows == 0) return;
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  Product(RoundedToBf16(x, s), w, bias, y, s);
}

void CudaOps::Embed(const PackedWeight& table, std::span<const Token> tokens,
                    Tensor y, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int32_t* const ids = s.Upload(tokens);
  if (!s.ok()) return;
  s.Check(cuda::Embed(static_cast<const CudaWeight&>(table).rows(), ids,
                      RowsOf(y), s.get()),
          "embed");
}

void CudaOps::GatherRows(ConstTensor x, std::span<const int32_t> rows, Tensor y,
                         Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int32_t* const indices = s.Upload(rows);
  if (!s.ok()) return;
  s.Check(cuda::GatherRows(RowsOf(x), indices, RowsOf(y), s.get()),
          "gather rows");
}

void CudaOps::RmsNorm(ConstTensor x, const float* weight, float eps, Tensor y,
                      Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::RmsNorm(RowsOf(x), weight, eps, RowsOf(y), s.get()), "RMSNorm");
}

void CudaOps::Rope(Tensor x, int64_t head_dim, const float* cos,
                   const float* sin, Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::Rope(RowsOf(x), head_dim, cos, sin, s.get()), "RoPE");
}

void CudaOps::SiluMul(ConstTensor gate, ConstTensor up, Tensor y,
                      Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::SiluMul(RowsOf(gate), RowsOf(up), RowsOf(y), s.get()),
          "SiLU * mul");
}

void CudaOps::ResidualAdd(ConstTensor x, Tensor y, Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::ResidualAdd(RowsOf(x), RowsOf(y), s.get()), "residual add");
}

void CudaOps::ScaleColumns(const float* gain, const float* bias, Tensor y,
                           Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::ScaleColumns(gain, bias, RowsOf(y), s.get()), "a gain");
}

void CudaOps::ScatterColumns(ConstTensor x, std::span<const int32_t> cols,
                             Tensor y, Stream& stream) {
  CHECK_EQ(static_cast<size_t>(x.cols), cols.size());
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int32_t* const places = s.Upload(cols);
  if (!s.ok()) return;
  s.Check(cuda::ScatterColumns(RowsOf(x), places, RowsOf(y), s.get()),
          "scattering columns");
}

}  // namespace lorikeet::cuda
