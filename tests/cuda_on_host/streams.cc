#include "tests/cuda_on_host/streams.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/findings.h"
#include "tests/cuda_on_host/scheduler.h"
#include "tests/cuda_on_host/seeded.h"
#include "tests/cuda_on_host/stream_order.h"

namespace cuda_on_host {
namespace {

struct EventState {
  bool is_done = true;
  StreamClock clock;  // what is before a wait for it
};

struct Operation {
  std::function<void()> run;                   // may be null
  std::shared_ptr<EventState> waits, signals;  // may be null
  RunningOperation order;
};

struct Node {
  std::function<void()> run;
  std::vector<size_t> after;
};
using Nodes = std::vector<Node>;

}  // namespace
}  // namespace cuda_on_host

using cuda_on_host::EventState;
using cuda_on_host::Node;
using cuda_on_host::Nodes;
using cuda_on_host::Operation;
using cuda_on_host::StreamClock;

// The types behind CUDA's opaque handles.
struct CUgraph_st {
  Nodes nodes;
};
struct CUgraphExec_st {
  Nodes nodes;
};
struct CUevent_st {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
  CUgraph_st* graph = nullptr;  // recorded while captured into it
  std::vector<size_t> nodes;
};
struct CUstream_st {
  size_t index = 0;
  uint32_t enqueued = 0;
  StreamClock clock;
  std::deque<Operation> queue;
  CUgraph_st* capture = nullptr;
  bool is_capture_of_thread = false;
  std::vector<size_t> tail;  // what the next node comes after
};

namespace cuda_on_host {
namespace {

struct Runtime {
  std::vector<CUstream_st*> streams;
  size_t stream_count = 0;  // ever made
  CUstream_st* legacy = nullptr;
  StreamClock host;  // what is before all that the host enqueues now
  int captures = 0;  // that bind every thread
  cudaError_t last_error = cudaSuccess;
  Seeded random{options().seed};
  uint64_t random_seed = options().seed;
};

Runtime& R() {
  static auto* const runtime = new Runtime();
  return *runtime;
}

// Captures that bind this thread alone.
thread_local int t_captures = 0;

int& CapturesLike(const CUstream_st* s) {
  return s->is_capture_of_thread ? t_captures : R().captures;
}

CUstream_st* NewStream() {
  auto* const s = new CUstream_st();
  s->index = R().stream_count++;
  R().streams.push_back(s);
  return s;
}

CUstream_st* Of(cudaStream_t stream) {
  if (stream != nullptr) return stream;
  if (R().legacy == nullptr) R().legacy = NewStream();
  return R().legacy;
}

size_t PickOne(size_t count) {
  Runtime& r = R();
  if (options().streams == Options::Streams::kEager) return 0;
  if (r.random_seed != options().seed) {
    r.random = Seeded(options().seed);
    r.random_seed = options().seed;
  }
  return r.random.Below(static_cast<uint32_t>(count));
}

void RunHead(CUstream_st& s) {
  const Operation op = std::move(s.queue.front());
  s.queue.pop_front();
  if (op.run && StickyError() == cudaSuccess) {
    BeginOperation(op.order);
    op.run();
  }
  if (op.signals) op.signals->is_done = true;
}

// Runs operations in any order that streams and events allow.
template <typename Done>
cudaError_t RunUntil(const Done& done) {
  while (!done()) {
    std::vector<CUstream_st*> ready;
    for (CUstream_st* s : R().streams) {
      if (s->queue.empty()) continue;
      const auto& waits = s->queue.front().waits;
      if (waits == nullptr || waits->is_done) ready.push_back(s);
    }
    if (ready.empty()) {
      ReportFinding("deadlock", "streams wait for events that never come",
                    "streams");
      break;
    }
    RunHead(*ready[PickOne(ready.size())]);
  }
  return StickyError() != cudaSuccess ? Fail(StickyError()) : cudaSuccess;
}

bool IsIdle() {
  return std::ranges::all_of(
      R().streams, [](const CUstream_st* s) { return s->queue.empty(); });
}

cudaError_t Push(CUstream_st* s, Operation op) {
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  if (s == R().legacy) RunUntil(IsIdle);  // it orders against all others
  Join(R().host, &s->clock);
  if (op.waits) Join(op.waits->clock, &s->clock);
  op.order = {s->index, ++s->enqueued, s->clock};
  if (s->clock.size() <= s->index) s->clock.resize(s->index + 1);
  s->clock[s->index] = s->enqueued;
  if (op.signals) op.signals->clock = s->clock;
  s->queue.push_back(std::move(op));
  if (options().streams == Options::Streams::kEager) {
    RunUntil([s] { return s->queue.empty(); });
  }
  return StickyError() != cudaSuccess ? Fail(StickyError()) : cudaSuccess;
}

void RunGraph(const Nodes& nodes) {
  std::vector<bool> is_done(nodes.size());
  for (size_t left = nodes.size(); left > 0; --left) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); ++i) {
      const bool can_run =
          !is_done[i] && std::ranges::all_of(nodes[i].after, [&](size_t j) {
            return is_done[j];
          });
      if (can_run) ready.push_back(i);
    }
    const size_t picked = ready[PickOne(ready.size())];
    nodes[picked].run();
    is_done[picked] = true;
  }
}

// Whether every node is before the end of the capture.
bool IsJoined(const Nodes& nodes, std::vector<size_t> todo) {
  std::vector<bool> is_reached(nodes.size());
  while (!todo.empty()) {
    const size_t i = todo.back();
    todo.pop_back();
    if (is_reached[i]) continue;
    is_reached[i] = true;
    todo.insert(todo.end(), nodes[i].after.begin(), nodes[i].after.end());
  }
  return std::ranges::all_of(is_reached, [](bool b) { return b; });
}

}  // namespace

ApiLock::ApiLock()
    : lock_([]() -> std::recursive_mutex& {
        static auto* const mutex = new std::recursive_mutex();
        return *mutex;
      }()) {}

cudaError_t Enqueue(cudaStream_t stream, std::function<void()> run) {
  CUstream_st* const s = Of(stream);
  if (s->capture == nullptr) {
    return Push(s, {std::move(run), nullptr, nullptr, {}});
  }
  s->capture->nodes.push_back({std::move(run), s->tail});
  s->tail = {s->capture->nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t SynchronizeAll() {
  const cudaError_t error = RunUntil(IsIdle);
  for (const CUstream_st* s : R().streams) Join(s->clock, &R().host);
  return error;
}

bool IsCapturing(cudaStream_t stream) { return Of(stream)->capture != nullptr; }

bool IsForbiddenInCapture(const char* what) {
  if (R().captures == 0 && t_captures == 0) return false;
  ReportFinding("graph capture",
                std::string(what) + " while a stream is captured", what);
  return true;
}

cudaError_t Fail(cudaError_t error) { return R().last_error = error; }

void ResetDevice() {
  SetStickyError(cudaSuccess);
  R().last_error = cudaSuccess;
  for (CUstream_st* s : R().streams) s->queue.clear();
}

}  // namespace cuda_on_host

// ---- the runtime's interface
// -------------------------------------------------

using cuda_on_host::ApiLock;
using cuda_on_host::Fail;
using cuda_on_host::Join;
using cuda_on_host::Of;
using cuda_on_host::Push;
using cuda_on_host::R;
using cuda_on_host::ReportFinding;
using cuda_on_host::RunUntil;
using cuda_on_host::StickyError;

#define CUDA_API extern "C" cudaError_t CUDARTAPI

CUDA_API cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  const ApiLock lock;
  *s = cuda_on_host::NewStream();
  return cudaSuccess;
}
CUDA_API cudaStreamDestroy(cudaStream_t s) {
  const ApiLock lock;
  RunUntil([s] { return s->queue.empty(); });
  std::erase(R().streams, s);
  delete s;
  return cudaSuccess;
}
CUDA_API cudaStreamSynchronize(cudaStream_t stream) {
  const ApiLock lock;
  if (cuda_on_host::IsForbiddenInCapture("cudaStreamSynchronize")) {
    return Fail(cudaErrorStreamCaptureUnsupported);
  }
  CUstream_st* const s = Of(stream);
  const cudaError_t error = RunUntil([s] { return s->queue.empty(); });
  Join(s->clock, &R().host);
  return error;
}
CUDA_API cudaDeviceSynchronize() {
  const ApiLock lock;
  return cuda_on_host::SynchronizeAll();
}
CUDA_API cudaStreamQuery(cudaStream_t stream) {
  const ApiLock lock;
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  CUstream_st* const s = Of(stream);
  if (!s->queue.empty()) return cudaErrorNotReady;
  Join(s->clock, &R().host);
  return cudaSuccess;
}

CUDA_API cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  const ApiLock lock;
  *e = new CUevent_st();
  return cudaSuccess;
}
CUDA_API cudaEventDestroy(cudaEvent_t e) {
  const ApiLock lock;
  delete e;
  return cudaSuccess;
}
CUDA_API cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  const ApiLock lock;
  CUstream_st* const s = Of(stream);
  e->graph = s->capture;
  if (s->capture != nullptr) {
    e->nodes = s->tail;
    return cudaSuccess;
  }
  e->state = std::make_shared<EventState>();
  e->state->is_done = false;
  return Push(s, {nullptr, nullptr, e->state, {}});
}
CUDA_API cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
  const ApiLock lock;
  CUstream_st* const s = Of(stream);
  if (e->graph == nullptr) return Push(s, {nullptr, e->state, nullptr, {}});
  if (s->capture == nullptr) {  // the fork of a capture
    s->capture = e->graph;
    s->tail.clear();
  }
  s->tail.insert(s->tail.end(), e->nodes.begin(), e->nodes.end());
  return cudaSuccess;
}
CUDA_API cudaEventSynchronize(cudaEvent_t e) {
  const ApiLock lock;
  const auto state = e->state;
  const cudaError_t error = RunUntil([&] { return state->is_done; });
  Join(state->clock, &R().host);
  return error;
}
CUDA_API cudaEventQuery(cudaEvent_t e) {
  const ApiLock lock;
  if (StickyError() != cudaSuccess) return Fail(StickyError());
  if (!e->state->is_done) return cudaErrorNotReady;
  Join(e->state->clock, &R().host);
  return cudaSuccess;
}

CUDA_API cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
  const ApiLock lock;
  if (s == nullptr || s->capture != nullptr) {
    return Fail(cudaErrorStreamCaptureUnsupported);
  }
  s->capture = new CUgraph_st();
  s->tail.clear();
  s->is_capture_of_thread = mode == cudaStreamCaptureModeThreadLocal;
  ++cuda_on_host::CapturesLike(s);
  return cudaSuccess;
}
CUDA_API cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  const ApiLock lock;
  *graph = s->capture;
  if (s->capture == nullptr) return Fail(cudaErrorStreamCaptureInvalidated);
  const bool is_joined = cuda_on_host::IsJoined(s->capture->nodes, s->tail);
  --cuda_on_host::CapturesLike(s);
  for (CUstream_st* other : R().streams) {
    if (other->capture != *graph) continue;
    other->capture = nullptr;
    other->tail.clear();
  }
  if (is_joined) return cudaSuccess;
  ReportFinding("graph capture",
                "a forked stream was not joined before the end", "join");
  return Fail(cudaErrorStreamCaptureUnjoined);
}
CUDA_API cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                              unsigned long long) {
  const ApiLock lock;
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}
CUDA_API cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const ApiLock lock;
  return cuda_on_host::Enqueue(stream,
                               [exec] { cuda_on_host::RunGraph(exec->nodes); });
}
CUDA_API cudaGraphDestroy(cudaGraph_t graph) {
  const ApiLock lock;
  delete graph;
  return cudaSuccess;
}
CUDA_API cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const ApiLock lock;
  delete exec;
  return cudaSuccess;
}

CUDA_API cudaGetLastError() {
  const ApiLock lock;
  const cudaError_t error = std::exchange(R().last_error, cudaSuccess);
  return StickyError() != cudaSuccess ? StickyError() : error;
}
CUDA_API cudaPeekAtLastError() {
  const ApiLock lock;
  return R().last_error;
}
