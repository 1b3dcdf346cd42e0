// What this machine can do at most: bytes read from memory and multiply-adds
// per second, with all threads of a pool. Benchmarks print their figures as
// shares of these. On shared machines the limits move within seconds, so a
// benchmark that reports a share measures the limit again beside each figure.
//
// One call at a time.

#ifndef LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_
#define LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_

#include <vector>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "kernels/tensor.h"

namespace lorikeet {

class MachineProbe {
 public:
  // `pool` and `clock` outlive this. Takes 512 MB of memory.
  MachineProbe(ThreadPool& pool, const Clock& clock);

  // One pass of some 20 ms each: streaming reads far beyond the caches;
  // 2 per f32 fused multiply-add; 4 per lane of a bf16 dot product (0 where the
  // CPU has none).
  double ReadBytesPerSecond();
  double F32FlopsPerSecond();
  double Bf16FlopsPerSecond();

 private:
  double FlopsPerSecond(int64_t (*chains)(int64_t, float*));

  ThreadPool& pool_;
  const Clock& clock_;
  const Buffer buffer_;
  std::vector<float> sinks_;  // per worker
};

struct MachinePeaks {
  double read_bytes_per_second = 0;
  double f32_flops_per_second = 0;
};

// The best of several passes.
MachinePeaks MeasureMachinePeaks(ThreadPool& pool, const Clock& clock);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_
