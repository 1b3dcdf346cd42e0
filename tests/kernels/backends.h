// What the tests of operators share: backends of every SIMD target, random
// matrices, adapters, and the comparison inside a bound.
//
// Thread-compatible.

#ifndef LORIKEET_TESTS_KERNELS_BACKENDS_H_
#define LORIKEET_TESTS_KERNELS_BACKENDS_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace lorikeet::testing {

class StagedOps;

// The names of the CUDA backend on the emulated device, as it is and in its
// batch-invariant mode.
inline constexpr char kCudaOnHost[] = "cuda_on_host";
inline constexpr char kCudaOnHostInvariant[] = "cuda_on_host_invariant";
// The same on a GPU; there if $LORIKEET_TEST_CUDA names the plug-in's file.
inline constexpr char kCuda[] = "cuda";
inline constexpr char kCudaInvariant[] = "cuda_invariant";

// All backends that this machine can run: the CPU's SIMD targets, kCudaOnHost
// where it was built ($LORIKEET_CUDA_ON_HOST_BUILD: "checked", the default, or
// "fast"), and kCuda.
std::vector<std::string> BackendNames();
// The same and the batch-invariant mode of those of CUDA.
std::vector<std::string> BackendNamesOfProducts();

// A backend by its name, with its own threads if it is the CPU's. Findings of
// the emulated device fail the test.
class CpuBackend {
 public:
  CpuBackend(const std::string& name, int num_threads,
             DType compute_dtype = DType::kF32);
  bool is_cpu() const { return is_cpu_; }
  // To what the operands of products are rounded: 0 = not at all.
  double operand_eps() const { return operand_eps_; }
  // What base weights can be stored as.
  std::span<const DType> weight_dtypes() const;
  bool has_int8() const { return weight_dtypes().back() == DType::kI8; }
  // Whether a row's products do not depend on the batch.
  bool is_batch_invariant() const { return is_batch_invariant_; }
  // The backend as one of a device; null if it is the CPU's.
  StagedOps* staged() { return staged_; }
  Ops* operator->() { return ops_.get(); }
  Ops& operator*() { return *ops_; }

 private:
  const bool is_cpu_;
  const bool is_batch_invariant_;
  ThreadPool pool_;
  std::unique_ptr<Ops> ops_;
  StagedOps* staged_ = nullptr;  // is ops_
  double operand_eps_ = 0;
};

// Odd on purpose.
inline constexpr int64_t kOddSizes[] = {1, 3, 7, 17, 31, 64, 100};
inline constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
inline constexpr DType kWeightDTypes[] = {DType::kF32, DType::kBF16,
                                          DType::kF16, DType::kI8};
// What a matrix is made in to be packed as `weight`.
constexpr DType SourceOf(DType weight) {
  return weight == DType::kI8 ? DType::kF32 : weight;
}

// Owns a matrix; rows may be further apart than they are wide.
class Matrix {
 public:
  Matrix() = default;
  Matrix(int64_t rows, int64_t cols, DType dtype = DType::kF32,
         int64_t padding = 0);
  // Normal numbers.
  static Matrix Random(Rng& rng, int64_t rows, int64_t cols,
                       DType dtype = DType::kF32, double stddev = 1,
                       int64_t padding = 0);

  Tensor view() const { return view_; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  float* row(int64_t i) const { return view_.f32(i); }
  double At(int64_t i, int64_t j) const { return ConstTensor(view_).At(i, j); }
  Matrix Clone() const;
  void Fill(float value);

 private:
  Buffer bytes_;
  Tensor view_;
};

std::vector<float> RandomFloats(Rng& rng, int64_t count, double stddev = 1);

// |actual - expected| <= bound(row, col), else a failure that names the place.
template <typename Bound>
void ExpectNear(const Matrix& actual, const Matrix& expected,
                const Bound& bound);
// The same bits, row by row.
void ExpectSameBits(const Matrix& actual, const Matrix& expected);

void FailNear(int64_t row, int64_t col, double actual, double expected,
              double bound);

template <typename Bound>
void ExpectNear(const Matrix& actual, const Matrix& expected,
                const Bound& bound) {
  for (int64_t i = 0; i < expected.rows(); ++i) {
    for (int64_t j = 0; j < expected.cols(); ++j) {
      const double a = actual.At(i, j);
      const double e = expected.At(i, j);
      const double allowed = bound(i, j);
      if (!(a - e <= allowed && e - a <= allowed)) {
        return FailNear(i, j, a, e, allowed);
      }
    }
  }
}

inline constexpr double kEps = 0x1.0p-24;  // unit roundoff of f32

// Unit roundoff of bf16.
inline constexpr double kBf16Eps = 0x1.0p-8;

// Error of a sum of k products in f32, any order: k eps sum |a||b|, and one
// more rounding of the result; where both operands are rounded first (to
// operand_eps), that as well.
double DotBound(ConstTensor x, int64_t row, ConstTensor w, int64_t col,
                double operand_eps = 0);

// Relative error of a product whose factors are both rounded to `eps`.
constexpr double ProductEps(double eps) { return 2 * eps + eps * eps; }

// |m|, to find what a sum's error is relative to.
Matrix Abs(const Matrix& m);

// A and B of some linears, packed for one backend.
struct AdapterWeights {
  LinearId id;
  Matrix a;  // [rank, in]
  Matrix b;  // [out, rank]
  float scaling = 1;
};
LoraSlot PackSlot(Ops& ops, const std::vector<AdapterWeights>& weights);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_KERNELS_BACKENDS_H_
