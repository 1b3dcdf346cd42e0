#include "tests/cuda_on_host/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#include "base/check.h"

// Callee-saved registers go to the stack; the rest the caller has saved.
asm(R"(
.text
.globl cuda_on_host_switch_fiber
.hidden cuda_on_host_switch_fiber
.type cuda_on_host_switch_fiber, @function
cuda_on_host_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch_fiber, . - cuda_on_host_switch_fiber
)");

namespace cuda_on_host {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr size_t kGuardBytes = 4096;

}  // namespace

void* NewFiber(char* stack_high, void (*entry)()) {
  // Six registers, the entry for `ret`, and a return address that is never
  // used: after `ret` the stack is as a call would have left it.
  uintptr_t frame[8] = {};
  frame[6] = reinterpret_cast<uintptr_t>(entry);
  char* const sp = stack_high - sizeof frame;
  std::memcpy(sp, frame, sizeof frame);
  return sp;
}

FiberStacks::~FiberStacks() {
  if (memory_ != nullptr) munmap(memory_, count_ * kStackBytes);
}

void FiberStacks::Resize(size_t count) {
  if (count <= count_) return;
  if (memory_ != nullptr) munmap(memory_, count_ * kStackBytes);
  count_ = count;
  void* const p = mmap(nullptr, count_ * kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED);
  memory_ = static_cast<char*>(p);
  for (size_t i = 0; i < count_; ++i) mprotect(low(i), kGuardBytes, PROT_NONE);
}

char* FiberStacks::low(size_t i) const { return memory_ + i * kStackBytes; }
char* FiberStacks::high(size_t i) const { return low(i) + kStackBytes; }

}  // namespace cuda_on_host
