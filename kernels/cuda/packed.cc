#include "kernels/cuda/packed.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "kernels/cuda/error.h"

namespace lorikeet::cuda {
namespace {

constexpr int64_t kStagingBytes = int64_t{8} << 20;

// One row as bf16, then zeros up to `stride`.
void ConvertRow(ConstTensor from, int64_t row, int64_t stride, uint16_t* to) {
  if (from.dtype == DType::kBF16) {
    std::memcpy(to, static_cast<const uint16_t*>(from.data) + row * from.stride,
                static_cast<size_t>(from.cols) * sizeof(uint16_t));
  } else {
    for (int64_t i = 0; i < from.cols; ++i) {
      to[i] = BF16FromFloat(from.At(row, i));
    }
  }
  std::fill(to + from.cols, to + stride, uint16_t{0});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Packer>> Packer::Create(MemoryPool& pool) {
  cudaStream_t stream = nullptr;
  RETURN_IF_ERROR(
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
               "a stream for loads"));
  std::unique_ptr<Packer> packer(new Packer(pool, stream));
  ASSIGN_OR_RETURN(PinnedBuffer staging, PinnedBuffer::Allocate(kStagingBytes));
  MutexLock lock(&packer->mu_);
  packer->staging_ = std::move(staging);
  return packer;
}

Packer::~Packer() { cudaStreamDestroy(stream_); }

absl::Status Packer::Write(ConstTensor from, Bf16* to, int64_t stride) {
  MutexLock lock(&mu_);
  const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(uint16_t));
  if (row_bytes > staging_.size_bytes()) {
    ASSIGN_OR_RETURN(staging_, PinnedBuffer::Allocate(row_bytes));
  }
  const int64_t at_once = staging_.size_bytes() / row_bytes;
  for (int64_t first = 0; first < from.rows; first += at_once) {
    const int64_t rows = std::min(at_once, from.rows - first);
    uint16_t* const staged = reinterpret_cast<uint16_t*>(staging_.data());
    for (int64_t i = 0; i < rows; ++i) {
      ConvertRow(from, first + i, stride, staged + i * stride);
    }
    RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(to + first * stride, staged,
                                 static_cast<size_t>(rows * row_bytes),
                                 cudaMemcpyHostToDevice, stream_),
                 "a load"));
    RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "a load"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaWeight>> Packer::NewWeight(int64_t out_dim,
                                                              int64_t in_dim) {
  const int64_t stride = RoundUp(in_dim, kVectorBf16);
  ASSIGN_OR_RETURN(
      DeviceBuffer buffer,
      DeviceBuffer::Allocate(
          pool_, out_dim * stride * static_cast<int64_t>(sizeof(Bf16))));
  return std::make_unique<CudaWeight>(out_dim, in_dim, std::move(buffer));
}

absl::StatusOr<std::unique_ptr<CudaWeight>> Packer::PackWeight(ConstTensor w) {
  ASSIGN_OR_RETURN(std::unique_ptr<CudaWeight> weight,
                   NewWeight(w.rows, w.cols));
  const Rows<Bf16> rows = weight->mutable_rows(0, w.rows);
  RETURN_IF_ERROR(Write(w, rows.data, rows.stride));
  return weight;
}

absl::StatusOr<std::unique_ptr<CudaLora>> Packer::PackLora(ConstTensor a,
                                                           ConstTensor b) {
  const int64_t a_stride = RoundUp(a.cols, kVectorBf16);
  const int64_t b_stride = RoundUp(b.cols, kVectorBf16);
  const int64_t a_elements = a.rows * a_stride;
  ASSIGN_OR_RETURN(
      DeviceBuffer buffer,
      DeviceBuffer::Allocate(pool_, (a_elements + b.rows * b_stride) *
                                        static_cast<int64_t>(sizeof(Bf16))));
  RETURN_IF_ERROR(Write(a, buffer.as<Bf16>(), a_stride));
  RETURN_IF_ERROR(Write(b, buffer.as<Bf16>() + a_elements, b_stride));
  return std::make_unique<CudaLora>(a.rows, a.cols, b.rows, std::move(buffer));
}

}  // namespace lorikeet::cuda
