// What this machine can do at most: bytes read from memory and multiply-adds
// per second, measured with all threads of a pool. Benchmarks print their
// figures as shares of these.
//
// One call at a time.

#ifndef LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_
#define LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_

#include "base/clock.h"
#include "base/thread_pool.h"

namespace lorikeet {

struct MachinePeaks {
  double read_bytes_per_second = 0;  // streaming reads, far beyond the caches
  double f32_flops_per_second = 0;   // 2 per fused multiply-add
};

// Takes about a second; the best of several rounds.
MachinePeaks MeasureMachinePeaks(ThreadPool& pool, const Clock& clock);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CPU_MACHINE_PEAKS_H_
