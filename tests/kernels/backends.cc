#include "tests/kernels/backends.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cuda_plugin.h"
#include "tests/cuda_on_host/emulated_backend.h"
#include "tests/kernels/staged_ops.h"

namespace lorikeet::testing {
namespace {

std::string Environment(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

std::string CudaPath() { return Environment("LORIKEET_TEST_CUDA", ""); }

bool IsOnHost(const std::string& name) {
  return name == kCudaOnHost || name == kCudaOnHostInvariant;
}
bool IsCuda(const std::string& name) {
  return IsOnHost(name) || name == kCuda || name == kCudaInvariant;
}

std::unique_ptr<StagedOps> NewCuda(const CudaOptions& options) {
  absl::StatusOr<std::unique_ptr<Ops>> ops = LoadCudaOps(CudaPath(), options);
  if (!ops.ok()) std::fprintf(stderr, "%s\n", ops.status().ToString().c_str());
  CHECK(ops.ok());
  return std::make_unique<StagedOps>(*std::move(ops), [] {});
}

std::unique_ptr<StagedOps> NewCudaOnHost(const CudaOptions& options) {
  const std::string path = CudaOnHostPath();
  std::unique_ptr<Ops> ops = OpenCudaOnHost(path, options);
  const cuda_on_host::Control& control = CudaOnHostControl(path);
  return std::make_unique<StagedOps>(std::move(ops),
                                     [&control] { ExpectNoFindings(control); });
}

}  // namespace

std::vector<std::string> BackendNames() {
  std::vector<std::string> names = SupportedCpuTargets();
  if (HasCudaOnHost(CudaOnHostPath())) names.push_back(kCudaOnHost);
  if (!CudaPath().empty()) names.push_back(kCuda);
  return names;
}

std::vector<std::string> BackendNamesOfProducts() {
  const std::vector<std::string> modes = BackendNames();
  std::vector<std::string> names = modes;
  for (const std::string& name : modes) {
    if (name == kCudaOnHost) names.push_back(kCudaOnHostInvariant);
    if (name == kCuda) names.push_back(kCudaInvariant);
  }
  return names;
}

CpuBackend::CpuBackend(const std::string& name, int num_threads,
                       DType compute_dtype)
    : is_cpu_(!IsCuda(name)),
      is_batch_invariant_(name != kCudaOnHost && name != kCuda),
      pool_(num_threads) {
  if (is_cpu_) {
    ops_ = CreateCpuOps(pool_, {name, compute_dtype}).value();
    return;
  }
  const CudaOptions options{.batch_invariant = is_batch_invariant_};
  std::unique_ptr<StagedOps> staged =
      IsOnHost(name) ? NewCudaOnHost(options) : NewCuda(options);
  staged_ = staged.get();
  ops_ = std::move(staged);
  operand_eps_ = kBf16Eps;
}

std::span<const DType> CpuBackend::weight_dtypes() const {
  if (is_cpu_) return kWeightDTypes;
  return kDTypes;
}

Matrix Abs(const Matrix& m) {
  Matrix result = m.Clone();
  const Tensor t = result.view();
  for (int64_t i = 0; i < t.rows; ++i) {
    for (int64_t j = 0; j < t.cols; ++j) {
      StoreElement(t.dtype, t.data, i * t.stride + j,
                   static_cast<float>(std::fabs(m.At(i, j))));
    }
  }
  return result;
}

Matrix::Matrix(int64_t rows, int64_t cols, DType dtype, int64_t padding)
    : bytes_(rows * (cols + padding) * SizeBytes(dtype)),
      view_{bytes_.data(), dtype, rows, cols, cols + padding} {}

Matrix Matrix::Random(Rng& rng, int64_t rows, int64_t cols, DType dtype,
                      double stddev, int64_t padding) {
  Matrix m(rows, cols, dtype, padding);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      StoreElement(dtype, m.view_.data, i * m.view_.stride + j,
                   static_cast<float>(rng.Normal() * stddev));
    }
  }
  return m;
}

Matrix Matrix::Clone() const {
  Matrix m;
  m.bytes_ = Buffer(bytes_.size_bytes());
  if (bytes_.size_bytes() > 0) {
    std::memcpy(m.bytes_.data(), bytes_.data(),
                static_cast<size_t>(bytes_.size_bytes()));
  }
  m.view_ = view_;
  m.view_.data = m.bytes_.data();
  return m;
}

void Matrix::Fill(float value) {
  for (int64_t i = 0; i < view_.rows * view_.stride; ++i) {
    StoreElement(view_.dtype, view_.data, i, value);
  }
}

std::vector<float> RandomFloats(Rng& rng, int64_t count, double stddev) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(rng.Normal() * stddev);
  return values;
}

void FailNear(int64_t row, int64_t col, double actual, double expected,
              double bound) {
  ADD_FAILURE() << "at (" << row << ", " << col << "): " << actual << " is not "
                << expected << " within " << bound;
}

void ExpectSameBits(const Matrix& actual, const Matrix& expected) {
  ASSERT_EQ(actual.rows(), expected.rows());
  ASSERT_EQ(actual.cols(), expected.cols());
  for (int64_t i = 0; i < expected.rows(); ++i) {
    for (int64_t j = 0; j < expected.cols(); ++j) {
      const auto a = std::bit_cast<uint32_t>(actual.row(i)[j]);
      const auto e = std::bit_cast<uint32_t>(expected.row(i)[j]);
      ASSERT_EQ(a, e) << "at (" << i << ", " << j << "): " << actual.row(i)[j]
                      << " and " << expected.row(i)[j];
    }
  }
}

double DotBound(ConstTensor x, int64_t row, ConstTensor w, int64_t col,
                double operand_eps) {
  double magnitude = 0;
  for (int64_t k = 0; k < x.cols; ++k) {
    magnitude += std::fabs(static_cast<double>(x.At(row, k)) * w.At(col, k));
  }
  return (static_cast<double>(x.cols + 1) * kEps + ProductEps(operand_eps)) *
             magnitude +
         1e-37;
}

LoraSlot PackSlot(Ops& ops, const std::vector<AdapterWeights>& weights) {
  LoraSlot slot;
  for (const AdapterWeights& w : weights) {
    const size_t index = static_cast<size_t>(w.id.index());
    if (slot.entries.size() <= index) slot.entries.resize(index + 1);
    slot.entries[index].weights = ops.PackLora(w.a.view(), w.b.view());
    slot.entries[index].scaling = w.scaling;
  }
  return slot;
}

}  // namespace lorikeet::testing
