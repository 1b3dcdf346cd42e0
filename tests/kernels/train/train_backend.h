// What the tests of training's operators share: a backend with the Ops that
// packs its weights, and the reference beside it.
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
#include "tests/kernels/train/staged_train_ops.h"

namespace lorikeet::testing {

class TrainBackend {
 public:
  TrainBackend(const std::string& name, int num_threads,
               DType compute_dtype = DType::kF32)
      : pool_(num_threads), packer_(name, num_threads) {
    if (packer_.is_cpu()) {
      ops_ = CreateCpuTrainOps(pool_, {name, compute_dtype}).value();
    } else {
      ops_ = std::make_unique<StagedTrainOps>(*packer_.staged());
    }
  }
  bool is_cpu() const { return packer_.is_cpu(); }
  // What a frozen matrix of that type is kept as.
  DType StoredAs(DType dtype) const { return is_cpu() ? dtype : DType::kBF16; }
  std::span<const DType> weight_dtypes() const {
    return packer_.weight_dtypes();
  }
  TrainOps* operator->() { return ops_.get(); }
  TrainOps& operator*() { return *ops_; }
  Ops& packer() { return *packer_; }

 private:
  ThreadPool pool_;
  CpuBackend packer_;
  std::unique_ptr<TrainOps> ops_;
};

inline Matrix RoundedToBf16(const Matrix& m) {
  Matrix result(m.rows(), m.cols());
  for (int64_t i = 0; i < m.rows(); ++i) {
    for (int64_t j = 0; j < m.cols(); ++j) {
      result.row(i)[j] = FloatFromBF16(BF16FromFloat(m.row(i)[j]));
    }
  }
  return result;
}

// One body over every backend, the CPU's with two threads, and the reference
// beside it.
class TrainOpsTest : public ::testing::TestWithParam<std::string> {
 protected:
  // m as it is multiplied with frozen weights: a GPU rounds it.
  Matrix AsMultiplied(const Matrix& m) const {
    return backend_.is_cpu() ? m.Clone() : RoundedToBf16(m);
  }

  TrainBackend backend_{GetParam(), 2};
  std::unique_ptr<Ops> reference_packer_ = NewReferenceOps();
  std::unique_ptr<TrainOps> reference_ = NewReferenceTrainOps();
  HostStream stream_;
  Rng rng_{7};
};

#define SKIP_UNLESS_CPU(why) \
  if (!backend_.is_cpu()) GTEST_SKIP() << "skipped: " << (why)

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

#define INSTANTIATE_TRAIN_TARGETS(suite)                        \
  INSTANTIATE_TEST_SUITE_P(Targets, suite,                      \
                           ::testing::ValuesIn(BackendNames()), \
                           [](const auto& p) { return p.param; })

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_TRAIN_TRAIN_BACKEND_H_
