// The whole vocabulary is sorted, best first and ties by id; the cuts of top-k,
// top-p and min-p are prefixes of that order. The draw walks the kept tokens by
// ascending id.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/random.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {
namespace {

double LogSumExp(const float* logits, int64_t vocab) {
  double best = -INFINITY;
  for (int64_t i = 0; i < vocab; ++i) best = std::max<double>(best, logits[i]);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - best);
  return best + std::log(sum);
}

// All ids, best first.
template <typename T>
std::vector<Token> BestFirst(const T* values, int64_t vocab) {
  std::vector<Token> ids(static_cast<size_t>(vocab));
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](Token a, Token b) { return values[a] > values[b]; });
  return ids;
}

void FillLogprobs(const float* logits, int64_t vocab, Token token,
                  int32_t num_logprobs, SampledRow& out) {
  const double total = LogSumExp(logits, vocab);
  out.logprob = static_cast<float>(logits[token] - total);
  out.top.clear();
  if (num_logprobs <= 0) return;
  const std::vector<Token> ids = BestFirst(logits, vocab);
  const int64_t count = std::min<int64_t>(num_logprobs, vocab);
  for (int64_t i = 0; i < count; ++i) {
    const Token id = ids[static_cast<size_t>(i)];
    out.top.emplace_back(id, static_cast<float>(logits[id] - total));
  }
}

void ApplyEdits(const SamplingRow& p, float* logits, int64_t vocab) {
  for (const auto& [token, bias] : p.logit_bias) logits[token] += bias;
  if (p.repetition_penalty != 1 || p.presence_penalty != 0 ||
      p.frequency_penalty != 0) {
    for (const auto& [token, count] : p.token_counts) {
      float& x = logits[token];
      x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
      if (count == 0) continue;
      x -= p.presence_penalty;
      x -= p.frequency_penalty * static_cast<float>(count);
    }
  }
  for (const Token token : p.banned) logits[token] = -INFINITY;
  if (p.allowed_bits.empty()) return;
  for (int64_t i = 0; i < vocab; ++i) {
    if ((p.allowed_bits[static_cast<size_t>(i / 64)] >> (i % 64) & 1) == 0) {
      logits[i] = -INFINITY;
    }
  }
}

// The number of tokens of `ids` (best first, weights relative to the best's 1)
// that top-k, top-p and min-p keep.
size_t CountKept(const SamplingRow& p, const std::vector<Token>& ids,
                 const std::vector<double>& weights) {
  size_t kept = ids.size();
  if (p.top_k > 0) kept = std::min(kept, static_cast<size_t>(p.top_k));
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    total += weights[static_cast<size_t>(ids[i])];
  }
  double mass = 0;
  for (size_t i = 0; i < kept && p.top_p < 1; ++i) {
    mass += weights[static_cast<size_t>(ids[i])];
    if (mass >= static_cast<double>(p.top_p) * total) kept = i + 1;
  }
  while (kept > 1 && weights[static_cast<size_t>(ids[kept - 1])] < p.min_p) {
    --kept;
  }
  return kept;
}

Token Draw(const SamplingRow& p, const float* logits, int64_t vocab) {
  std::vector<Token> ids = BestFirst(logits, vocab);
  const double best = logits[ids[0]];
  if (p.temperature == 0 || !std::isfinite(best)) return ids[0];
  std::vector<double> weights(static_cast<size_t>(vocab));
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::exp((logits[i] - best) / p.temperature);
  }
  ids.resize(CountKept(p, ids, weights));
  std::sort(ids.begin(), ids.end());
  double total = 0;
  for (const Token id : ids) total += weights[static_cast<size_t>(id)];
  const double target =
      total * PhiloxUniform(p.seed, p.candidate, p.output_position);
  double mass = 0;
  Token last = ids[0];
  for (const Token id : ids) {
    if (weights[static_cast<size_t>(id)] == 0) continue;
    mass += weights[static_cast<size_t>(id)];
    last = id;
    if (mass > target) break;
  }
  return last;
}

}  // namespace

void ReferenceOps::Sample(Tensor logits, std::span<const SamplingRow> params,
                          std::span<SampledRow> out, Stream&) {
  CHECK_EQ(static_cast<size_t>(logits.rows), params.size());
  CHECK_EQ(params.size(), out.size());
  for (int64_t i = 0; i < logits.rows; ++i) {
    const SamplingRow& p = params[static_cast<size_t>(i)];
    SampledRow& result = out[static_cast<size_t>(i)];
    const float* raw = logits.f32(i);
    std::vector<float> edited(raw, raw + logits.cols);
    ApplyEdits(p, edited.data(), logits.cols);
    result.token = Draw(p, edited.data(), logits.cols);
    result.logprob = 0;
    result.top.clear();
    if (p.num_logprobs >= 0) {
      FillLogprobs(raw, logits.cols, result.token, p.num_logprobs, result);
    }
  }
}

void ReferenceOps::Logprobs(ConstTensor logits, std::span<const Token> targets,
                            int32_t num_logprobs, std::span<SampledRow> out,
                            Stream&) {
  CHECK_EQ(static_cast<size_t>(logits.rows), targets.size());
  CHECK_EQ(targets.size(), out.size());
  for (int64_t i = 0; i < logits.rows; ++i) {
    const size_t row = static_cast<size_t>(i);
    out[row].token = targets[row];
    FillLogprobs(logits.f32(i), logits.cols, targets[row], num_logprobs,
                 out[row]);
  }
}

}  // namespace lorikeet::reference
