// What the tests of training's operators share: a CPU backend of one target
// with the Ops that packs its weights, and the reference beside it.
//
// Thread-compatible.

#ifndef LORIKEET_TESTS_KERNELS_TRAIN_TRAIN_BACKEND_H_
#define LORIKEET_TESTS_KERNELS_TRAIN_TRAIN_BACKEND_H_

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/train/train_ops.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/train/train_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {

class TrainBackend {
 public:
  TrainBackend(const std::string& target, int num_threads,
               DType compute_dtype = DType::kF32)
      : pool_(num_threads),
        packer_(CreateCpuOps(pool_, {target}).value()),
        ops_(CreateCpuTrainOps(pool_, {target, compute_dtype}).value()) {}
  TrainOps* operator->() { return ops_.get(); }
  TrainOps& operator*() { return *ops_; }
  Ops& packer() { return *packer_; }

 private:
  ThreadPool pool_;
  std::unique_ptr<Ops> packer_;
  std::unique_ptr<TrainOps> ops_;
};

// One body over every target: two threads, one thread, and the reference.
class TrainOpsTest : public ::testing::TestWithParam<std::string> {
 protected:
  TrainBackend cpu_{GetParam(), 2};
  TrainBackend one_{GetParam(), 1};
  std::unique_ptr<Ops> reference_packer_ = NewReferenceOps();
  std::unique_ptr<TrainOps> reference_ = NewReferenceTrainOps();
  HostStream stream_;
  Rng rng_{7};
};

// |actual - expected| <= tolerance * largest |expected|.
inline void ExpectClose(const Matrix& actual, const Matrix& expected,
                        double tolerance) {
  double largest = 0;
  for (int64_t i = 0; i < expected.rows(); ++i) {
    for (int64_t j = 0; j < expected.cols(); ++j) {
      largest = std::max(largest, std::fabs(expected.At(i, j)));
    }
  }
  ExpectNear(actual, expected,
             [&](int64_t, int64_t) { return tolerance * largest + 1e-30; });
}

#define INSTANTIATE_TRAIN_TARGETS(suite)                               \
  INSTANTIATE_TEST_SUITE_P(Targets, suite,                             \
                           ::testing::ValuesIn(SupportedCpuTargets()), \
                           [](const auto& p) { return p.param; })

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_TRAIN_TRAIN_BACKEND_H_
