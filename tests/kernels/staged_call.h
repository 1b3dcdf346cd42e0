// A StagedCall is the device memory of one call of an operator whose tensors
// lie on the host: they are copied there, and what was written comes back when
// it ends.
//
// Matrices keep their row stride and their place within 16 bytes, so that odd
// widths stay odd. Outputs are poisoned with NaN before the call; what lies
// between the rows must come back unchanged. Thread-compatible.

#ifndef LORIKEET_TESTS_KERNELS_STAGED_CALL_H_
#define LORIKEET_TESTS_KERNELS_STAGED_CALL_H_

#include <functional>
#include <memory>
#include <vector>

#include "kernels/ops.h"

namespace lorikeet::testing {

class StagedCall {
 public:
  // `after_call` runs at the end: to look for findings. All outlive this.
  StagedCall(Ops& device, Stream& stream,
             const std::function<void()>& after_call)
      : device_(device), stream_(stream), after_call_(after_call) {}
  StagedCall(const StagedCall&) = delete;
  StagedCall& operator=(const StagedCall&) = delete;
  // Waits for the device. REQUIRES: it did not fail.
  ~StagedCall();

  ConstTensor In(ConstTensor t);
  // Is written, and maybe read before.
  Tensor InOut(Tensor t) { return Out(t, /*poison=*/false); }
  // Is only written.
  Tensor Out(Tensor t) { return Out(t, /*poison=*/true); }

  // Null stays null.
  const float* In(const float* p, int64_t count);
  float* InOut(float* p, int64_t count);

  PagedKvView Cache(PagedKvView kv, int64_t blocks);

 private:
  struct Back {
    const void* from;
    void* to;
    int64_t size_bytes;
  };

  Tensor Out(Tensor t, bool poison);
  // Copies there now and back at the end.
  void* Both(void* host, int64_t bytes);
  char* Place(const void* host, int64_t bytes);

  Ops& device_;
  Stream& stream_;
  const std::function<void()>& after_call_;
  std::vector<std::unique_ptr<Memory>> memory_;
  std::vector<Back> back_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_STAGED_CALL_H_
