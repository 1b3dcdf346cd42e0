// A CudaStream is a queue of the device with what its operators need beside it:
// arrays from the host, scratch memory, and results on their way back.
//
// Arrays go through pinned memory, so that no call waits; that memory is used
// again after Sync. Scratch belongs to the innermost Scope and may be given out
// again when it ends: what comes later in the stream runs later. An error comes
// out of the next Sync; a fault of the device stays, and comes out of every one
// from then on. Engine thread only.

#ifndef LORIKEET_KERNELS_CUDA_CUDA_STREAM_H_
#define LORIKEET_KERNELS_CUDA_CUDA_STREAM_H_

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/bump.h"
#include "kernels/cuda/launch_recorder.h"
#include "kernels/stream.h"

namespace lorikeet::cuda {

class CudaStream final : public Stream {
 public:
  // `on_fault` is told of a fault of the device; `graph_launches` counts steps
  // that were one. Both and `pool` outlive the stream. Errors: INTERNAL.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(
      MemoryPool& pool, std::function<void(const absl::Status&)> on_fault,
      std::atomic<int64_t>* graph_launches);
  ~CudaStream() override;

  absl::Status Sync() override;

  cudaStream_t get() const { return stream_; }
  // What follows until Sync may be one graph launch.
  void BeginRecording() { recorder_.Begin(); }
  // Keeps the error if there is one; returns whether all is well so far.
  bool Check(cudaError_t error, absl::string_view what);
  void Fail(absl::Status status);
  bool ok() const { return status_.ok(); }

  // The life of scratch memory.
  class Scope {
   public:
    explicit Scope(CudaStream& stream)
        : stream_(stream), mark_(stream.scratch_.mark()) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { stream_.scratch_.Release(mark_); }

   private:
    CudaStream& stream_;
    const DeviceBump::Mark mark_;
  };

  // Device memory until the Scope ends; null (and an error) if there is none.
  // REQUIRES: a Scope is open.
  void* Scratch(int64_t size_bytes);
  template <typename T>
  T* ScratchOf(int64_t count) {
    return static_cast<T*>(Scratch(count * static_cast<int64_t>(sizeof(T))));
  }
  // The same, with the bytes at `host`, which may change at once.
  template <typename T>
  const T* Upload(std::span<const T> host) {
    return static_cast<const T*>(
        UploadBytes(host.data(), static_cast<int64_t>(host.size_bytes())));
  }
  template <typename T>
  const T* Upload(const std::vector<T>& host) {
    return Upload(std::span<const T>(host));
  }
  // Copies to `to`, which is device memory.
  void CopyIn(const void* host, void* to, int64_t size_bytes);
  // Copies from the device; after Sync `use` gets the bytes.
  void Download(const void* from, int64_t size_bytes,
                std::function<void(const char*)> use);

 private:
  struct Result {
    const char* bytes;  // pinned
    std::function<void(const char*)> use;
  };

  CudaStream(cudaStream_t stream, MemoryPool& pool,
             std::function<void(const absl::Status&)> on_fault,
             std::atomic<int64_t>* graph_launches)
      : stream_(stream),
        on_fault_(std::move(on_fault)),
        graph_launches_(*graph_launches),
        pinned_(PinnedBuffer::Allocate),
        scratch_([&pool](int64_t size_bytes) {
          return DeviceBuffer::Allocate(pool, size_bytes);
        }) {}
  const void* UploadBytes(const void* host, int64_t size_bytes);
  // Copies to `to` by way of pinned memory, `padded` >= size_bytes bytes.
  void CopyStaged(const void* host, void* to, int64_t size_bytes,
                  int64_t padded);
  // Of pinned memory.
  void Copy(void* to, const void* from, int64_t size_bytes, cudaMemcpyKind kind,
            absl::string_view what);

  cudaStream_t stream_;
  const std::function<void(const absl::Status&)> on_fault_;
  std::atomic<int64_t>& graph_launches_;
  absl::Status status_;
  PinnedBump pinned_;   // until Sync
  DeviceBump scratch_;  // until the end of a Scope
  std::vector<Result> results_;
  LaunchRecorder recorder_{stream_};
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_CUDA_STREAM_H_
