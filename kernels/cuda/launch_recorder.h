// A LaunchRecorder collects what a step enqueues on a stream, and enqueues it
// at once: a step that is the same as one before is a single graph launch
// instead of hundreds of launches.
//
// The same is: the same kernels with the same grids and the same arguments,
// byte for byte, and copies between the same places. What differs between two
// steps lies in the arrays that the copies bring (tokens, positions, block
// tables, adapters' pointers, tiles), so steps of one shape replay one graph
// whatever adapters they use, and steps without adapters replay the graph of a
// server that has none. A list that comes for the first time is enqueued as it
// is; the second time it is captured.
//
// Results do not depend on any of that. One thread, that of its stream.

#ifndef LORIKEET_KERNELS_CUDA_LAUNCH_RECORDER_H_
#define LORIKEET_KERNELS_CUDA_LAUNCH_RECORDER_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace lorikeet::cuda {

// Whether equal values have equal bytes. What a kernel takes by value must.
template <typename T>
inline constexpr bool kIsBytes =
    std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>;

class LaunchRecorder {
 public:
  // Graphs that are kept; those of steps long ago go first.
  static constexpr size_t kMaxGraphs = 128;

  using Operation = std::function<cudaError_t(cudaStream_t)>;

  // `stream` outlives this.
  explicit LaunchRecorder(cudaStream_t stream) : stream_(stream) {}
  ~LaunchRecorder();
  LaunchRecorder(const LaunchRecorder&) = delete;
  LaunchRecorder& operator=(const LaunchRecorder&) = delete;

  // The one of this thread that records for `stream`; null: enqueue at once.
  static LaunchRecorder* Of(cudaStream_t stream);

  // Records from here to Flush. REQUIRES: no other one of this thread does.
  void Begin();
  // Adds an operation. Two with the same key parts do the same.
  template <typename... T>
  void Record(Operation operation, const T&... key) {
    (AppendKey(key), ...);
    operations_.push_back(std::move(operation));
  }
  template <typename T>
  void AppendKey(const T& part) {
    static_assert(kIsBytes<T>);
    AppendBytes(&part, sizeof(T));
  }
  // For launch.h, and out of line for its sake: files with kernels may be
  // instrumented, and their copies of inline functions are the program's.
  void AppendBytes(const void* bytes, size_t size);
  void RecordCall(std::shared_ptr<const void> call,
                  cudaError_t (*run)(const void* call, cudaStream_t stream));
  // Enqueues what was recorded; `was_graph` is set if that was one launch. The
  // error is that of a launch.
  cudaError_t Flush(bool* was_graph);

 private:
  struct Graph {
    cudaGraphExec_t exec = nullptr;  // null: seen once
    uint64_t last_use = 0;
  };

  cudaError_t EnqueueAll();
  // Null exec if the driver cannot.
  cudaGraphExec_t Capture();
  void EvictOldest();

  const cudaStream_t stream_;
  std::string key_;  // of the operations, in their order
  std::vector<Operation> operations_;
  std::map<std::string, Graph> graphs_;
  uint64_t num_flushes_ = 0;
  bool can_capture_ = true;
};

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_LAUNCH_RECORDER_H_
