#include "adapters/adapter_norms.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

double FrobeniusNorm(const ConstTensor& m) {
  double sum = 0;
  for (int64_t row = 0; row < m.rows; ++row) {
    for (int64_t col = 0; col < m.cols; ++col) {
      const double value = m.At(row, col);
      sum += value * value;
    }
  }
  return std::sqrt(sum);
}

}  // namespace

absl::Status CheckNorms(const AdapterWeights& weights) {
  for (const LoraModule& module : weights.modules) {
    const double elements =
        static_cast<double>(module.b.rows) * static_cast<double>(module.a.cols);
    const double rms = std::abs(module.scaling) * FrobeniusNorm(module.a) *
                       FrobeniusNorm(module.b) / std::sqrt(elements);
    if (rms <= kMaxDeltaRms) continue;  // false for NaN
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat(
            "module ", module.name, ": scaling x |A| x |B| makes weights of ",
            rms, " on average, the limit is ", kMaxDeltaRms)),
        "ADAPTER_INVALID");
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
