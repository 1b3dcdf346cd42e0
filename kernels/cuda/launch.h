// Launch(kernel, config, arguments...) is the only way in which this project
// starts a kernel. Nothing else differs between nvcc and the emulated device.
//
// Arguments are passed by value and copied before Launch returns. While a
// LaunchRecorder records for the stream, the launch is its.

#ifndef LORIKEET_KERNELS_CUDA_LAUNCH_H_
#define LORIKEET_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "kernels/cuda/launch_recorder.h"

#if !defined(__CUDACC__)
#include <cuda_on_host/launch_call.h>
#endif

namespace lorikeet::cuda {

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

template <typename... P>
cudaError_t LaunchNow(void (*kernel)(P...), const LaunchConfig& c,
                      const P&... args) {
#if defined(__CUDACC__)
  cudaLaunchConfig_t config = {};
  config.gridDim = c.grid;
  config.blockDim = c.block;
  config.dynamicSmemBytes = c.shared_bytes;
  config.stream = c.stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
#else
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> args;
  };
  return cuda_on_host::LaunchCall(
      c.grid, c.block, c.shared_bytes, c.stream,
      reinterpret_cast<const void*>(kernel),
      std::make_shared<Call>(Call{kernel, {args...}}), sizeof(Call),
      [](const void* p) {
        const Call& call = *static_cast<const Call*>(p);
        std::apply(call.kernel, call.args);
      });
#endif
}

template <typename... P>
void RecordLaunch(LaunchRecorder& recorder, void (*kernel)(P...),
                  const LaunchConfig& c, const P&... args) {
  struct Recorded {
    void (*kernel)(P...);
    LaunchConfig config;
    std::tuple<P...> args;
  };
  recorder.AppendKey(reinterpret_cast<const void*>(kernel));
  for (const dim3& size : {c.grid, c.block}) {
    recorder.AppendKey(size.x);
    recorder.AppendKey(size.y);
    recorder.AppendKey(size.z);
  }
  recorder.AppendKey(c.shared_bytes);
  (recorder.AppendKey(args), ...);
  recorder.RecordCall(
      std::make_shared<Recorded>(Recorded{kernel, c, {args...}}),
      [](const void* p, cudaStream_t stream) {
        const Recorded& recorded = *static_cast<const Recorded*>(p);
        LaunchConfig now = recorded.config;
        now.stream = stream;
        return std::apply(
            [&](const P&... a) {
              return LaunchNow<P...>(recorded.kernel, now, a...);
            },
            recorded.args);
      });
}

template <typename... P, typename... A>
cudaError_t Launch(void (*kernel)(P...), const LaunchConfig& c, A&&... args) {
  LaunchRecorder* const recorder = LaunchRecorder::Of(c.stream);
  if (recorder == nullptr) {
    return LaunchNow<P...>(kernel, c, P(std::forward<A>(args))...);
  }
  RecordLaunch<P...>(*recorder, kernel, c, P(std::forward<A>(args))...);
  return cudaSuccess;
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_LAUNCH_H_
