#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "base/check.h"

namespace lorikeet {
namespace {

// Llama 3: long wavelengths are stretched by the factor, short ones stay, and
// between the two bounds is a linear blend.
double Llama3Frequency(const RopeConfig& rope, double frequency) {
  const double length = static_cast<double>(rope.original_max_position);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength > length / rope.low_freq_factor) {
    return frequency / rope.factor;
  }
  if (wavelength < length / rope.high_freq_factor) return frequency;
  const double blend = (length / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - blend) * frequency / rope.factor + blend * frequency;
}

// YaRN (Peng et al. 2023): dimensions that turn more than beta_fast times over
// the original length stay, those below beta_slow turns are stretched.
struct YarnRange {
  double low = 0;
  double high = 0;
};

YarnRange FindYarnRange(const RopeConfig& rope, int64_t head_dim) {
  const double dim = static_cast<double>(head_dim);
  const auto dimension_of = [&](double turns) {
    return dim *
           std::log(static_cast<double>(rope.original_max_position) /
                    (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  YarnRange range = {dimension_of(rope.beta_fast),
                     dimension_of(rope.beta_slow)};
  if (rope.truncate) range = {std::floor(range.low), std::ceil(range.high)};
  range = {std::max(range.low, 0.0), std::min(range.high, dim - 1)};
  if (range.low == range.high) range.high += 0.001;
  return range;
}

double YarnFrequency(const RopeConfig& rope, const YarnRange& range, int64_t i,
                     double frequency) {
  const double stretched = std::clamp(
      (static_cast<double>(i) - range.low) / (range.high - range.low), 0.0,
      1.0);
  return stretched * frequency / rope.factor + (1 - stretched) * frequency;
}

}  // namespace

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                           int64_t head_dim) {
  CHECK(head_dim > 0 && head_dim % 2 == 0);
  const YarnRange yarn = rope.kind == RopeConfig::Kind::kYarn
                             ? FindYarnRange(rope, head_dim)
                             : YarnRange();
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) /
                                        static_cast<double>(head_dim));
    switch (rope.kind) {
      case RopeConfig::Kind::kDefault:
        break;
      case RopeConfig::Kind::kLinear:
        f /= rope.factor;
        break;
      case RopeConfig::Kind::kLlama3:
        f = Llama3Frequency(rope, f);
        break;
      case RopeConfig::Kind::kYarn:
        f = YarnFrequency(rope, yarn, i, f);
        break;
    }
    frequencies[static_cast<size_t>(i)] = f;
  }
  return frequencies;
}

RopeTable::RopeTable(const ModelConfig& config)
    : frequencies_(RopeInverseFrequencies(config.rope, config.head_dim)),
      attention_factor_(config.rope.attention_factor) {}

void RopeTable::GrowTo(int64_t positions) {
  if (positions <= positions_) return;
  // In steps, so that decoding does not grow the table at every token.
  constexpr int64_t kStep = 1024;
  const int64_t target = (positions + kStep - 1) / kStep * kStep;
  const size_t half = frequencies_.size();
  cos_.resize(static_cast<size_t>(target) * half);
  sin_.resize(static_cast<size_t>(target) * half);
  for (int64_t p = positions_; p < target; ++p) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequencies_[i];
      const size_t at = static_cast<size_t>(p) * half + i;
      cos_[at] = static_cast<float>(std::cos(angle) * attention_factor_);
      sin_[at] = static_cast<float>(std::sin(angle) * attention_factor_);
    }
  }
  positions_ = target;
}

void RopeTable::Fill(std::span<const SequenceRows> sequences, float* cos,
                     float* sin) {
  const size_t half = frequencies_.size();
  int32_t row = 0;
  for (const SequenceRows& s : sequences) {
    CHECK(s.row_begin == row && s.row_end >= row && s.first_position >= 0);
    const int64_t rows = s.row_end - s.row_begin;
    GrowTo(int64_t{s.first_position} + rows);
    // Positions of a sequence ascend by one: its rows are one stretch.
    const size_t from = static_cast<size_t>(s.first_position) * half;
    const size_t to = static_cast<size_t>(s.row_begin) * half;
    const size_t bytes = static_cast<size_t>(rows) * half * sizeof(float);
    if (bytes > 0) {
      std::memcpy(cos + to, cos_.data() + from, bytes);
      std::memcpy(sin + to, sin_.data() + from, bytes);
    }
    row = s.row_end;
  }
}

}  // namespace lorikeet
