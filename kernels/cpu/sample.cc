// One token per row of logits.
//
// Greedy reads the row once. Otherwise weights exp((x - max) / T) replace the
// logits; only tokens that a cut could keep are ordered: those above a small
// threshold, if they turn out to hold enough mass (and number) for the cut to
// fall among them, else all. The draw walks kept tokens by ascending id.

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/random.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sample.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

// First the largest value of all lanes, then its first index.
void ArgMax(const float* x, int64_t n, float* best, int64_t* index) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  // Blocks, so that the second look reads from L1.
  constexpr int64_t kBlock = 1024;
  *best = -std::numeric_limits<float>::infinity();
  *index = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    FloatVec largest = lowest;
    FloatVec largest2 = lowest;
    int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      const FloatVec a = hn::LoadU(d, x + i);
      const FloatVec b = hn::LoadU(d, x + i + kLanes);
      largest = hn::IfThenElse(hn::Gt(a, largest), a, largest);
      largest2 = hn::IfThenElse(hn::Gt(b, largest2), b, largest2);
    }
    float block = hn::GetLane(hn::MaxOfLanes(d, hn::Max(largest, largest2)));
    for (; i < end; ++i) {
      if (x[i] > block) block = x[i];
    }
    if (!(block > *best)) continue;
    *best = block;
    i = begin;
    while (x[i] != block) ++i;
    *index = i;
  }
}

double ExpSum(const float* x, float offset, float scale, int64_t n, float* y) {
  const FloatTag d;
  const FloatVec offsets = hn::Set(d, offset);
  const FloatVec scales = hn::Set(d, scale);
  double total = 0;
  // f32 sums of short blocks, added in double.
  constexpr int64_t kBlock = 512;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(n, begin + kBlock);
    FloatVec sum = hn::Zero(d);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const FloatVec z = hn::Mul(hn::Sub(hn::LoadU(d, x + i), offsets), scales);
      const FloatVec e = hn::Exp(d, z);
      if (y != nullptr) hn::StoreU(e, d, y + i);
      sum = hn::Add(sum, e);
    }
    total += hn::GetLane(hn::SumOfLanes(d, sum));
    for (; i < end; ++i) {
      const float e =
          hn::GetLane(hn::Exp(d, hn::Set(d, (x[i] - offset) * scale)));
      if (y != nullptr) y[i] = e;
      total += e;
    }
  }
  return total;
}

int64_t FindAtLeast(const float* x, int64_t n, float threshold,
                    int32_t* indices) {
  const FloatTag d;
  const FloatVec thresholds = hn::Set(d, threshold);
  int64_t found = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto above = hn::Ge(hn::LoadU(d, x + i), thresholds);
    if (hn::AllFalse(d, above)) continue;
    for (int64_t j = i; j < i + kLanes; ++j) {
      indices[found] = static_cast<int32_t>(j);
      found += x[j] >= threshold ? 1 : 0;
    }
  }
  for (; i < n; ++i) {
    if (x[i] >= threshold) indices[found++] = static_cast<int32_t>(i);
  }
  return found;
}

}  // namespace

void FillSampleOfTarget(KernelTable* table) {
  table->arg_max = ArgMax;
  table->exp_sum = ExpSum;
  table->find_at_least = FindAtLeast;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Tokens below this weight (relative to the best) seldom take part in a cut.
constexpr float kSeldom = 1e-5f;

bool HasPenalty(const SamplingRow& p) {
  return p.repetition_penalty != 1 || p.presence_penalty != 0 ||
         p.frequency_penalty != 0;
}

bool HasCut(const SamplingRow& p) {
  return p.top_k > 0 || p.top_p < 1 || p.min_p > 0;
}

void ApplyEdits(const SamplingRow& p, float* logits, int64_t vocab) {
  for (const auto& [token, bias] : p.logit_bias) {
    CHECK(token >= 0 && token < vocab);
    logits[token] += bias;
  }
  if (HasPenalty(p)) {
    for (const auto& [token, count] : p.token_counts) {
      CHECK(token >= 0 && token < vocab);
      float& x = logits[token];
      x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
      if (count == 0) continue;
      x -= p.presence_penalty;
      x -= p.frequency_penalty * static_cast<float>(count);
    }
  }
  for (const Token token : p.banned) {
    CHECK(token >= 0 && token < vocab);
    logits[token] = kMinusInfinity;
  }
  if (p.allowed_bits.empty()) return;
  CHECK_GE(static_cast<int64_t>(p.allowed_bits.size()) * 64, vocab);
  for (int64_t i = 0; i < vocab; ++i) {
    const uint64_t word = p.allowed_bits[static_cast<size_t>(i / 64)];
    if ((word >> (i % 64) & 1) == 0) logits[i] = kMinusInfinity;
  }
}

// Orders ids best first until the cuts of top-k and top-p are found. `ids`
// holds candidates of weights [vocab]; all others are worse. Returns the number
// kept at the front of ids (any order), or -1 if the cut may lie beyond the
// candidates.
int64_t CutCandidates(const SamplingRow& p, const float* weights, double total,
                      bool all, std::vector<int32_t>& ids) {
  const auto better = [weights](int32_t a, int32_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  };
  size_t count = ids.size();
  const size_t k = static_cast<size_t>(p.top_k);
  if (k > 0) {
    if (k > count && !all) return -1;
    count = std::min(count, k);
    if (count < ids.size()) {
      std::nth_element(ids.begin(), ids.begin() + static_cast<int64_t>(count),
                       ids.end(), better);
    }
    // By id, so that the sum does not depend on how nth_element left them.
    std::sort(ids.begin(), ids.begin() + static_cast<int64_t>(count));
    total = 0;
    for (size_t i = 0; i < count; ++i) total += weights[ids[i]];
  }
  if (p.top_p >= 1) return static_cast<int64_t>(count);
  const double wanted = static_cast<double>(p.top_p) * total;
  // Sorted in steps: the cut is often among the first few.
  double mass = 0;
  size_t sorted = 0;
  for (size_t step = 64; sorted < count; step *= 4) {
    const size_t end = std::min(count, sorted + step);
    const auto first = ids.begin() + static_cast<int64_t>(sorted);
    const auto middle = ids.begin() + static_cast<int64_t>(end);
    std::partial_sort(first, middle, ids.begin() + static_cast<int64_t>(count),
                      better);
    for (; sorted < end; ++sorted) {
      mass += weights[ids[sorted]];
      if (mass >= wanted) return static_cast<int64_t>(sorted) + 1;
    }
  }
  return all || k > 0 ? static_cast<int64_t>(count) : -1;
}

// Draws among ids (ascending), or among all tokens if ids is null.
Token DrawAmong(const float* weights, const int32_t* ids, int64_t count,
                double target) {
  double mass = 0;
  Token last = ids == nullptr ? 0 : ids[0];
  for (int64_t i = 0; i < count; ++i) {
    const Token id = ids == nullptr ? static_cast<Token>(i) : ids[i];
    if (!(weights[id] > 0)) continue;
    mass += weights[id];
    last = id;
    if (mass > target) break;
  }
  return last;
}

}  // namespace

HWY_EXPORT(FillSampleOfTarget);

void FillSample(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillSampleOfTarget)(&table);
}

Token CpuOps::Draw(float* logits, int64_t vocab, const SamplingRow& params,
                   float best, int64_t best_index, int worker) {
  const Token greedy = static_cast<Token>(best_index);
  if (params.temperature == 0 || !std::isfinite(best)) return greedy;
  const double uniform =
      PhiloxUniform(params.seed, params.candidate, params.output_position);
  const double total =
      kernels_.exp_sum(logits, best, 1 / params.temperature, vocab, logits);
  const float* weights = logits;
  if (!HasCut(params)) {
    // The same order as the walk, so that the target is within reach.
    double sum = 0;
    for (int64_t i = 0; i < vocab; ++i) {
      if (weights[i] > 0) sum += weights[i];
    }
    return DrawAmong(weights, nullptr, vocab, uniform * sum);
  }
  std::vector<int32_t>& ids = indices_[static_cast<size_t>(worker)];
  const auto find = [&](float threshold) {
    ids.resize(static_cast<size_t>(vocab));
    ids.resize(static_cast<size_t>(
        kernels_.find_at_least(weights, vocab, threshold, ids.data())));
  };
  int64_t kept;
  if (params.top_k == 0 && params.top_p >= 1) {
    find(params.min_p);
    kept = static_cast<int64_t>(ids.size());
  } else {
    find(kSeldom);
    kept = CutCandidates(params, weights, total, /*all=*/false, ids);
    if (kept < 0) {
      find(0);
      kept = CutCandidates(params, weights, total, /*all=*/true, ids);
    }
  }
  if (kept == 0) return greedy;
  ids.resize(static_cast<size_t>(kept));
  if (params.min_p > 0) {
    std::erase_if(ids, [&](int32_t id) { return weights[id] < params.min_p; });
    if (ids.empty()) return greedy;
  }
  std::sort(ids.begin(), ids.end());
  double sum = 0;
  for (const int32_t id : ids) sum += weights[id];
  return DrawAmong(weights, ids.data(), static_cast<int64_t>(ids.size()),
                   uniform * sum);
}

void CpuOps::FillLogprobs(const float* logits, int64_t vocab, Token token,
                          int32_t num_logprobs, SampledRow& out) {
  float best;
  int64_t index;
  kernels_.arg_max(logits, vocab, &best, &index);
  const double total =
      best + std::log(kernels_.exp_sum(logits, best, 1, vocab, nullptr));
  out.logprob = static_cast<float>(logits[token] - total);
  out.top.clear();
  const size_t count =
      static_cast<size_t>(std::clamp<int64_t>(num_logprobs, 0, vocab));
  if (count == 0) return;
  // Best first; a newcomer goes behind its equals, which have lower ids.
  for (int64_t i = 0; i < vocab; ++i) {
    if (out.top.size() == count && !(logits[i] > out.top.back().second)) {
      continue;
    }
    if (std::isnan(logits[i])) continue;
    if (out.top.size() == count) out.top.pop_back();
    auto at = out.top.end();
    while (at != out.top.begin() && (at - 1)->second < logits[i]) --at;
    out.top.insert(at, {static_cast<Token>(i), logits[i]});
  }
  for (auto& [id, value] : out.top) value = static_cast<float>(value - total);
}

void CpuOps::SampleRow(float* logits, int64_t vocab, const SamplingRow& params,
                       SampledRow& out, int worker) {
  out.logprob = 0;
  out.top.clear();
  const float* raw = logits;
  if (params.num_logprobs >= 0) {
    // The edits below and the weights overwrite the logits.
    float* copy = rows_[static_cast<size_t>(worker)].Get<float>(vocab);
    std::copy_n(logits, vocab, copy);
    raw = copy;
  }
  ApplyEdits(params, logits, vocab);
  float best;
  int64_t index;
  kernels_.arg_max(logits, vocab, &best, &index);
  out.token = Draw(logits, vocab, params, best, index, worker);
  if (params.num_logprobs >= 0) {
    FillLogprobs(raw, vocab, out.token, params.num_logprobs, out);
  }
}

void CpuOps::Sample(Tensor logits, std::span<const SamplingRow> params,
                    std::span<SampledRow> out, Stream&) {
  CHECK_EQ(static_cast<size_t>(logits.rows), params.size());
  CHECK_EQ(params.size(), out.size());
  pool_.ParallelFor(
      logits.rows, 1, [&](int64_t begin, int64_t end, int worker) {
        for (int64_t i = begin; i < end; ++i) {
          SampleRow(logits.f32(i), logits.cols, params[static_cast<size_t>(i)],
                    out[static_cast<size_t>(i)], worker);
        }
      });
}

void CpuOps::Logprobs(ConstTensor logits, std::span<const Token> targets,
                      int32_t num_logprobs, std::span<SampledRow> out,
                      Stream&) {
  CHECK_EQ(static_cast<size_t>(logits.rows), targets.size());
  CHECK_EQ(targets.size(), out.size());
  ForRows(logits.rows, logits.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t row = static_cast<size_t>(i);
      CHECK(targets[row] >= 0 && targets[row] < logits.cols);
      out[row].token = targets[row];
      FillLogprobs(logits.f32(i), logits.cols, targets[row], num_logprobs,
                   out[row]);
    }
  });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
