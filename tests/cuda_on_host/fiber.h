// A fiber is a stack and the place where it goes on. x86-64 only.
//
// A fiber never moves to another thread of the system, so addresses of
// thread-local variables that the compiler keeps stay valid.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_FIBER_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_FIBER_H_

#include <cstddef>

namespace cuda_on_host {

// Returns the stack pointer of a fiber that will start with `entry`, which must
// not return. `stack_high` is the end of its stack, aligned to 16.
void* NewFiber(char* stack_high, void (*entry)());

// Saves the running fiber's stack pointer in *from and goes on at `to`; returns
// when somebody switches back.
extern "C" void cuda_on_host_switch_fiber(void** from, void* to);

// Stacks with a guard page each. They are kept and grow with need.
class FiberStacks {
 public:
  FiberStacks() = default;
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  ~FiberStacks();

  void Resize(size_t count);
  char* low(size_t i) const;
  char* high(size_t i) const;

 private:
  char* memory_ = nullptr;
  size_t count_ = 0;
};

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_FIBER_H_
