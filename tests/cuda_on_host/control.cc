#include "tests/cuda_on_host/options.h"

namespace cuda_on_host {

#if defined(CUDA_ON_HOST_CHECKED)
constexpr bool kIsChecked = true;
#else
constexpr bool kIsChecked = false;
#endif

}  // namespace cuda_on_host

extern "C" __attribute__((visibility("default"))) const cuda_on_host::Control*
lorikeet_cuda_on_host_control() {
  static const cuda_on_host::Control control = {
      &cuda_on_host::options(), cuda_on_host::kIsChecked,
      cuda_on_host::TakeFindings, cuda_on_host::TakeCounters,
      cuda_on_host::ResetDevice};
  return &control;
}
