#include "kernels/cpu/target.h"

#include <mutex>

#include "hwy/highway.h"

namespace lorikeet::cpu {

void WithTarget(int64_t target, absl::FunctionRef<void()> fill) {
  static std::mutex& mutex = *new std::mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  fill();
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace lorikeet::cpu
