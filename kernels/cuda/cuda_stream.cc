#include "kernels/cuda/cuda_stream.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/error.h"

namespace lorikeet::cuda {

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(
    MemoryPool& pool, std::function<void(const absl::Status&)> on_fault) {
  cudaStream_t stream = nullptr;
  const cudaError_t error =
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return ToStatus(error, "a stream");
  return std::unique_ptr<CudaStream>(
      new CudaStream(stream, pool, std::move(on_fault)));
}

CudaStream::~CudaStream() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

absl::Status CudaStream::Sync() {
  Check(cudaStreamSynchronize(stream_), "the device failed");
  const std::vector<Result> results = std::exchange(results_, {});
  if (ok()) {
    for (const Result& r : results) r.use(r.bytes);
  }
  pinned_.Release({});
  absl::Status status = status_;
  if (!absl::IsInternal(status)) status_ = absl::OkStatus();
  return status;
}

bool CudaStream::Check(cudaError_t error, absl::string_view what) {
  if (error != cudaSuccess) Fail(ToStatus(error, what));
  return ok();
}

void CudaStream::Fail(absl::Status status) {
  if (absl::IsInternal(status)) on_fault_(status);
  status_.Update(status);
}

void* CudaStream::Scratch(int64_t size_bytes) {
  absl::StatusOr<char*> piece = scratch_.Take(size_bytes);
  if (piece.ok()) return *piece;
  Fail(piece.status());
  return nullptr;
}

const void* CudaStream::UploadBytes(const void* host, int64_t size_bytes) {
  void* const to = Scratch(size_bytes);
  if (to != nullptr) CopyIn(host, to, size_bytes);
  return to;
}

void CudaStream::CopyIn(const void* host, void* to, int64_t size_bytes) {
  if (size_bytes == 0) return;
  absl::StatusOr<char*> staged = pinned_.Take(size_bytes);
  if (!staged.ok()) return Fail(staged.status());
  const size_t size = static_cast<size_t>(size_bytes);
  std::memcpy(*staged, host, size);
  Check(cudaMemcpyAsync(to, *staged, size, cudaMemcpyHostToDevice, stream_),
        "a copy to the device");
}

void CudaStream::Download(const void* from, int64_t size_bytes,
                          std::function<void(const char*)> use) {
  if (size_bytes == 0 || from == nullptr) return;
  absl::StatusOr<char*> staged = pinned_.Take(size_bytes);
  if (!staged.ok()) return Fail(staged.status());
  Check(cudaMemcpyAsync(*staged, from, static_cast<size_t>(size_bytes),
                        cudaMemcpyDeviceToHost, stream_),
        "a copy from the device");
  results_.push_back({*staged, std::move(use)});
}

}  // namespace lorikeet::cuda
