// The scheduler runs the threads of a block as fibers, one block at a time.
//
// A fiber runs until it waits for others (barrier, warp operation) or ends;
// which one goes on then is the schedule's choice. If none can, that is a
// deadlock, and a finding. One thread of the system; blocks run one after the
// other in the schedule's order.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_SCHEDULER_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_SCHEDULER_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_on_host/device_language.h"
#include "tests/cuda_on_host/findings.h"
#include "tests/cuda_on_host/options.h"

namespace cuda_on_host {

struct Block;

// One cp.async that its thread has not waited for.
struct PendingCopy {
  void* to;
  const void* from;
  int read_bytes;  // 16, or 0 = zeros
  bool has_landed;
  Loc loc;
};

// What a fence published: all that the block did before barrier `epoch`, and
// what thread `thread` did up to `clock`.
struct Release {
  uint32_t epoch, thread, clock;
};

struct Thread {
  ThreadView view;  // first: t_view points here
  Block* block = nullptr;
  int index = 0, lane = 0, warp = 0;
  void* stack_pointer = nullptr;
  char* stack_low = nullptr;
  char* stack_high = nullptr;
  void* asan_stack = nullptr;

  enum class State : uint8_t { kReady, kAtBarrier, kInWarp, kDone };
  State state = State::kReady;
  Loc wait_loc;
  unsigned wait_mask = 0;
  const char* wait_what = nullptr;

  // Happens-before: block barriers passed, own releases.
  uint32_t epoch = 0;
  uint32_t clock = 1;
  bool has_fenced = false;
  Release published{};
  // Releases of other blocks that its atomics saw, and those since its fence.
  std::map<uint32_t, Release> observed, acquired;

  std::vector<std::vector<PendingCopy>> copies;  // committed groups
  std::vector<PendingCopy> open_copies;
};

// Lanes of a warp on their way to one operation.
struct WarpMeeting {
  unsigned mask = 0, arrived = 0;
  const char* what = nullptr;
  Loc loc;
  void* payload[32] = {};
};

struct Barrier {
  int arrived = 0, expected = 0;
  unsigned generation = 0;
  Loc loc;
  std::vector<Thread*> waiting;
  int count = 0;     // of threads whose predicate holds
  int result[2][2];  // by generation: count, arrived
};

struct SharedRegion {
  const void* site;
  char* base;
  size_t bytes;
  const char* name;
};

struct Kernel {  // one launch
  dim3 grid, block;
  size_t shared_bytes = 0;
  const void* function = nullptr;
  void (*invoke)(const void*) = nullptr;
  const void* params = nullptr;
  size_t param_bytes = 0;
  uint32_t launch_id = 0;
  KernelCounters* counters = nullptr;  // null = not counted
};

struct Block {
  const Kernel* kernel = nullptr;
  uint32_t index = 0;     // linear
  uint32_t instance = 0;  // never used twice
  int live = 0;           // threads that have not ended
  bool is_dead = false;   // a fault ended it
  std::vector<Thread> threads;
  std::vector<std::vector<WarpMeeting>> warps;
  std::vector<unsigned> alive;  // lanes per warp
  Barrier barriers[16];
  std::vector<SharedRegion> shared;
  char* arena = nullptr;
  size_t arena_used = 0;
  // [thread][thread] clocks joined inside of an epoch; empty = none.
  std::vector<uint32_t> seen;
  bool has_named_barrier = false;
  std::map<uint32_t, Release> acquired;  // before the last barrier
};

// The running thread of a kernel; null on the host.
inline Thread* Self() { return reinterpret_cast<Thread*>(t_view); }

void RunKernel(const Kernel& kernel);

// For collectives: lets others run until somebody makes this thread ready.
void WaitAs(Thread::State state, const char* what, unsigned mask,
            const Loc& loc);
void MakeReady(Thread* thread);
// In random schedules sometimes lets others go first.
void MaybeYield(unsigned one_in);
uint32_t RandomBelow(uint32_t n);

// A fault: the block and its launch end, and the context is broken.
[[noreturn]] void KillBlock(cudaError_t error);
cudaError_t StickyError();
void SetStickyError(cudaError_t error);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_SCHEDULER_H_
