#include "tests/cuda_on_host/scheduler.h"

#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tests/cuda_on_host/counters.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/fiber.h"
#include "tests/cuda_on_host/seeded.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_host {

constinit thread_local ThreadView* t_view = nullptr;

namespace {

struct Scheduler {
  Block block;
  FiberStacks stacks;
  Thread host;  // stands for the stack of the system's thread
  std::vector<Thread*> ready;
  size_t head = 0;  // ready is the queue [head, size)
  Seeded random;
  cudaError_t sticky_error = cudaSuccess;
  uint32_t instances = 0;
};

Scheduler& S() {
  static auto* const scheduler = new Scheduler();
  return *scheduler;
}

// The thread that goes on next and leaves the queue; null = none is ready.
Thread* PickNext() {
  Scheduler& s = S();
  const size_t n = s.ready.size() - s.head;
  if (n == 0) return nullptr;
  Thread* picked;
  if (options().schedule == Options::Schedule::kReverse) {
    picked = s.ready.back();
    s.ready.pop_back();
  } else {
    size_t i = s.head;
    if (options().schedule == Options::Schedule::kRandom) {
      i += s.random.Below(static_cast<uint32_t>(n));
    }
    picked = s.ready[i];
    s.ready[i] = s.ready[s.head++];
  }
  if (s.head == s.ready.size()) {
    s.ready.clear();
    s.head = 0;
  }
  return picked;
}

void SwitchTo(Thread* from, Thread* to, bool is_last) {
  t_view = to == &S().host ? nullptr : &to->view;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(
      is_last ? nullptr : &from->asan_stack, to->stack_low,
      static_cast<size_t>(to->stack_high - to->stack_low));
#else
  (void)is_last;
#endif
  cuda_on_host_switch_fiber(&from->stack_pointer, to->stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from->asan_stack, nullptr, nullptr);
#endif
}

void SwitchAway(bool is_last) {
  Scheduler& s = S();
  Thread* const self = Self();
  Thread* const next = s.block.is_dead ? nullptr : PickNext();
  if (next == self) return;
  SwitchTo(self, next != nullptr ? next : &s.host, is_last);
}

void ReportForgottenCopies(const Thread& t) {
  std::vector<PendingCopy> left;
  for (const auto& group : t.copies) {
    left.insert(left.end(), group.begin(), group.end());
  }
  left.insert(left.end(), t.open_copies.begin(), t.open_copies.end());
  if (left.empty()) return;
  ReportFinding("cp.async",
                "thread " + std::to_string(t.index) + " ends with " +
                    std::to_string(left.size()) +
                    " copies that it never waited for, issued at " +
                    Where(left[0].loc),
                Where(left[0].loc));
}

// Lanes that wait for one that has ended wait for ever.
void CheckMeetings(const Thread& t) {
  for (const WarpMeeting& m : t.block->warps[static_cast<size_t>(t.warp)]) {
    if ((m.mask >> t.lane & 1) == 0) continue;
    ReportFinding("warp mask",
                  std::string(m.what) + " at " + Where(m.loc) +
                      " waits for thread " + std::to_string(t.index) +
                      ", which has ended",
                  Where(m.loc));
  }
}

// Threads that have ended do not count for __syncthreads (as on sm_70 and up).
void LeaveBarrier(Block& block) {
  Barrier& barrier = block.barriers[0];
  if (barrier.arrived == 0 || barrier.arrived != block.live) return;
  int* const result = barrier.result[barrier.generation++ & 1];
  result[0] = barrier.count;
  result[1] = barrier.arrived;
  for (Thread* t : barrier.waiting) MakeReady(t);
  barrier.waiting.clear();
  barrier.arrived = barrier.count = 0;
}

void FiberMain() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  Thread* const self = Self();
  Block& block = *self->block;
  block.kernel->invoke(block.kernel->params);
  ReportForgottenCopies(*self);
  CheckMeetings(*self);
  self->state = Thread::State::kDone;
  block.alive[static_cast<size_t>(self->warp)] &= ~(1u << self->lane);
  --block.live;
  LeaveBarrier(block);
  SwitchAway(/*is_last=*/true);
  std::abort();
}

void ReportDeadlock(const Block& block) {
  std::map<std::string, std::string> groups;  // what they wait for -> threads
  for (const Thread& t : block.threads) {
    std::string what = "have ended";
    if (t.state == Thread::State::kAtBarrier) {
      what = std::string("wait at ") + t.wait_what + " " + Where(t.wait_loc);
    } else if (t.state == Thread::State::kInWarp) {
      char mask[16];
      std::snprintf(mask, sizeof mask, "%08x", t.wait_mask);
      what = std::string("wait in ") + t.wait_what + " mask " + mask + " " +
             Where(t.wait_loc);
    }
    groups[what] += " " + std::to_string(t.index);
  }
  std::string text = "no thread of block " + std::to_string(block.index) +
                     " of " + FunctionName(block.kernel->function) +
                     " can go on:";
  for (const auto& [what, threads] : groups) {
    text += "\n  threads" + threads.substr(0, 60) +
            (threads.size() > 60 ? " ..." : "") + " " + what;
  }
  ReportFinding("deadlock", text, FunctionName(block.kernel->function));
}

uint3 IndexOf(uint32_t i, const dim3& extent) {
  return {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y};
}

void SetUpBlock(const Kernel& kernel, uint32_t index) {
  Scheduler& s = S();
  Block& block = s.block;
  const uint32_t count = kernel.block.x * kernel.block.y * kernel.block.z;
  s.stacks.Resize(count);
  block.kernel = &kernel;
  block.index = index;
  block.instance = ++s.instances;
  block.live = static_cast<int>(count);
  block.is_dead = false;
  block.has_named_barrier = false;
  block.acquired.clear();
  block.seen.clear();
  block.warps.assign((count + 31) / 32, {});
  block.alive.assign((count + 31) / 32, 0);
  for (Barrier& b : block.barriers) b = Barrier{};
  ResetSharedMemory(block);
  s.random = Seeded(options().seed, kernel.launch_id, index);
  s.ready.clear();
  s.head = 0;
  block.threads.assign(count, Thread{});
  for (uint32_t i = 0; i < count; ++i) {
    Thread& t = block.threads[i];
    t.view = {IndexOf(i, kernel.block), IndexOf(index, kernel.grid),
              kernel.block, kernel.grid};
    t.block = &block;
    t.index = static_cast<int>(i);
    t.lane = t.index % 32;
    t.warp = t.index / 32;
    t.stack_low = s.stacks.low(i);
    t.stack_high = s.stacks.high(i);
    t.stack_pointer = NewFiber(t.stack_high, FiberMain);
    block.alive[i / 32] |= 1u << t.lane;
    s.ready.push_back(&t);
  }
}

// Launches may come from several threads, one after the other.
void FindHostStack(Thread* host) {
  thread_local char* stack_low = nullptr;
  thread_local size_t stack_size = 0;
  if (stack_low == nullptr) {
    pthread_attr_t attributes;
    void* low;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &low, &stack_size);
    pthread_attr_destroy(&attributes);
    stack_low = static_cast<char*>(low);
  }
  host->stack_low = stack_low;
  host->stack_high = stack_low + stack_size;
}

void RunBlock(const Kernel& kernel, uint32_t index) {
  Scheduler& s = S();
  SetUpBlock(kernel, index);
  while (s.block.live > 0 && !s.block.is_dead) {
    Thread* const next = PickNext();
    if (next == nullptr) {
      ReportDeadlock(s.block);
      SetStickyError(cudaErrorLaunchTimeout);
      break;
    }
    SwitchTo(&s.host, next, /*is_last=*/false);
  }
  if (kernel.counters != nullptr) CountBlockEnd(s.block);
}

std::vector<uint32_t> BlockOrder(const Kernel& kernel) {
  const uint32_t count = kernel.grid.x * kernel.grid.y * kernel.grid.z;
  std::vector<uint32_t> order(count);
  for (uint32_t i = 0; i < count; ++i) order[i] = i;
  if (options().schedule == Options::Schedule::kReverse) {
    std::reverse(order.begin(), order.end());
  } else if (options().schedule == Options::Schedule::kRandom) {
    Seeded random(options().seed, kernel.launch_id, 0x51u);
    for (uint32_t i = count; i > 1; --i) {
      std::swap(order[i - 1], order[random.Below(i)]);
    }
  }
  return order;
}

}  // namespace

void RunKernel(const Kernel& kernel) {
  FindHostStack(&S().host);
  for (const uint32_t index : BlockOrder(kernel)) {
    if (StickyError() != cudaSuccess) break;
    RunBlock(kernel, index);
  }
  if (kernel.counters != nullptr) CountLaunchEnd(kernel);
}

void WaitAs(Thread::State state, const char* what, unsigned mask,
            const Loc& loc) {
  Thread* const self = Self();
  self->state = state;
  self->wait_what = what;
  self->wait_mask = mask;
  self->wait_loc = loc;
  SwitchAway(/*is_last=*/false);
}

void MakeReady(Thread* thread) {
  thread->state = Thread::State::kReady;
  S().ready.push_back(thread);
}

void MaybeYield(unsigned one_in) {
  if (options().schedule != Options::Schedule::kRandom) return;
  if (S().random.Below(one_in) != 0) return;
  MakeReady(Self());
  SwitchAway(/*is_last=*/false);
}

uint32_t RandomBelow(uint32_t n) { return S().random.Below(n); }

void KillBlock(cudaError_t error) {
  SetStickyError(error);
  S().block.is_dead = true;
  SwitchAway(/*is_last=*/true);
  std::abort();
}

cudaError_t StickyError() { return S().sticky_error; }
void SetStickyError(cudaError_t error) { S().sticky_error = error; }

}  // namespace cuda_on_host
