#include "kernels/cuda/cuda_stream.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/error.h"
#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(
    MemoryPool& pool, std::function<void(const absl::Status&)> on_fault,
    std::atomic<int64_t>* graph_launches) {
  cudaStream_t stream = nullptr;
  const cudaError_t error =
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return ToStatus(error, "a stream");
  return std::unique_ptr<CudaStream>(
      new CudaStream(stream, pool, std::move(on_fault), graph_launches));
}

CudaStream::~CudaStream() {
  cudaStreamSynchronize(stream_);
  cudaStreamDestroy(stream_);
}

absl::Status CudaStream::Sync() {
  bool was_graph = false;
  Check(recorder_.Flush(&was_graph), "a launch");
  if (was_graph) graph_launches_.fetch_add(1);
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

void CudaStream::Copy(void* to, const void* from, int64_t size_bytes,
                      cudaMemcpyKind kind, absl::string_view what) {
  const size_t size = static_cast<size_t>(size_bytes);
  LaunchRecorder* const recorder = LaunchRecorder::Of(stream_);
  if (recorder == nullptr) {
    Check(cudaMemcpyAsync(to, from, size, kind, stream_), what);
    return;
  }
  recorder->Record(
      [=](cudaStream_t stream) {
        return cudaMemcpyAsync(to, from, size, kind, stream);
      },
      to, from, size, kind);
}

const void* CudaStream::UploadBytes(const void* host, int64_t size_bytes) {
  if (size_bytes == 0) return Scratch(0);
  // Whole pieces, so that an array that grows by little is copied as before.
  const int64_t padded = RoundUp(size_bytes, PinnedBump::kAlignment);
  void* const to = Scratch(padded);
  if (to == nullptr) return nullptr;
  CopyStaged(host, to, size_bytes, padded);
  return to;
}

void CudaStream::CopyIn(const void* host, void* to, int64_t size_bytes) {
  if (size_bytes > 0) CopyStaged(host, to, size_bytes, size_bytes);
}

void CudaStream::CopyStaged(const void* host, void* to, int64_t size_bytes,
                            int64_t padded) {
  absl::StatusOr<char*> staged = pinned_.Take(padded);
  if (!staged.ok()) return Fail(staged.status());
  std::memcpy(*staged, host, static_cast<size_t>(size_bytes));
  Copy(to, *staged, padded, cudaMemcpyHostToDevice, "a copy to the device");
}

void CudaStream::Download(const void* from, int64_t size_bytes,
                          std::function<void(const char*)> use) {
  if (size_bytes == 0 || from == nullptr) return;
  absl::StatusOr<char*> staged = pinned_.Take(size_bytes);
  if (!staged.ok()) return Fail(staged.status());
  Copy(*staged, from, size_bytes, cudaMemcpyDeviceToHost,
       "a copy from the device");
  results_.push_back({*staged, std::move(use)});
}

}  // namespace lorikeet::cuda
