#include "kernels/cuda/launch_recorder.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet::cuda {
namespace {

thread_local LaunchRecorder* t_recorder = nullptr;

}  // namespace

LaunchRecorder* LaunchRecorder::Of(cudaStream_t stream) {
  const bool records = t_recorder != nullptr && t_recorder->stream_ == stream;
  return records ? t_recorder : nullptr;
}

LaunchRecorder::~LaunchRecorder() {
  if (t_recorder == this) t_recorder = nullptr;
  for (const auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
}

void LaunchRecorder::Begin() {
  CHECK(t_recorder == nullptr || t_recorder == this);
  t_recorder = this;
}

void LaunchRecorder::AppendBytes(const void* bytes, size_t size) {
  key_.append(static_cast<const char*>(bytes), size);
}

void LaunchRecorder::RecordCall(std::shared_ptr<const void> call,
                                cudaError_t (*run)(const void* call,
                                                   cudaStream_t stream)) {
  operations_.push_back([call = std::move(call), run](cudaStream_t stream) {
    return run(call.get(), stream);
  });
}

cudaError_t LaunchRecorder::EnqueueAll() {
  for (const Operation& operation : operations_) {
    const cudaError_t error = operation(stream_);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaGraphExec_t LaunchRecorder::Capture() {
  // Loaders go on meanwhile: only this thread is held to what a capture allows.
  if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) !=
      cudaSuccess) {
    return nullptr;
  }
  const cudaError_t error = EnqueueAll();
  cudaGraph_t graph = nullptr;
  const bool is_whole = cudaStreamEndCapture(stream_, &graph) == cudaSuccess &&
                        error == cudaSuccess;
  cudaGraphExec_t exec = nullptr;
  if (is_whole && cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess) {
    exec = nullptr;
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  return exec;
}

void LaunchRecorder::EvictOldest() {
  const auto oldest = std::min_element(
      graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
        return a.second.last_use < b.second.last_use;
      });
  if (oldest->second.exec != nullptr) cudaGraphExecDestroy(oldest->second.exec);
  graphs_.erase(oldest);
}

cudaError_t LaunchRecorder::Flush(bool* was_graph) {
  if (t_recorder == this) t_recorder = nullptr;
  if (operations_.empty()) return cudaSuccess;
  const auto [at, is_new] = graphs_.try_emplace(key_);
  Graph& graph = at->second;
  graph.last_use = ++num_flushes_;
  if (!is_new && graph.exec == nullptr && can_capture_) {
    graph.exec = Capture();
    if (graph.exec == nullptr) {
      can_capture_ = false;
      cudaGetLastError();
    }
  }
  cudaError_t error;
  if (graph.exec != nullptr) {
    error = cudaGraphLaunch(graph.exec, stream_);
    *was_graph = true;
  } else {
    error = EnqueueAll();
  }
  operations_.clear();
  key_.clear();
  if (graphs_.size() > kMaxGraphs) EvictOldest();
  return error;
}

}  // namespace lorikeet::cuda
