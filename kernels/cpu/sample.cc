// One token per row of logits, which are read once (VocabScan).
//
// Only tokens that a cut could keep are ordered. Top-k takes them from the
// blocks with the best tokens; top-p from those above a small weight, if they
// turn out to hold enough mass for the cut to fall among them, else from all.
// The draw walks kept tokens by ascending id.

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

float Largest(const float* x, int64_t n) {
  const FloatTag d;
  FloatVec a = hn::Set(d, -std::numeric_limits<float>::infinity());
  FloatVec b = a;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const FloatVec next_a = hn::LoadU(d, x + i);
    const FloatVec next_b = hn::LoadU(d, x + i + kLanes);
    a = hn::IfThenElse(hn::Gt(next_a, a), next_a, a);
    b = hn::IfThenElse(hn::Gt(next_b, b), next_b, b);
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  for (; i < n; ++i) {
    if (x[i] > largest) largest = x[i];
  }
  return largest;
}

// First the largest value of a block, then its first index.
void ArgMax(const float* x, int64_t n, float* best, int64_t* index) {
  // Blocks, so that the second look reads from L1.
  constexpr int64_t kBlock = 1024;
  *best = -std::numeric_limits<float>::infinity();
  *index = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const float block = Largest(x + begin, std::min(kBlock, n - begin));
    if (!(block > *best)) continue;
    *best = block;
    *index = begin;
    while (x[*index] != block) ++*index;
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
  table->largest = Largest;
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

bool HasEdits(const SamplingRow& p) {
  return !p.logit_bias.empty() || HasPenalty(p) || !p.banned.empty() ||
         !p.allowed_bits.empty();
}

// The VocabScan margin of the cuts; top-k collects its candidates afterwards.
float MarginOf(const SamplingRow& p) {
  if (!HasCut(p) || p.top_k > 0) return -1;
  const float least = p.top_p >= 1 ? p.min_p : kSeldom;
  return -std::log(std::max(least, std::numeric_limits<float>::min()));
}

using Candidates = std::vector<VocabScan::Candidate>;

double WeightOf(const Candidates& candidates) {
  double sum = 0;
  for (const VocabScan::Candidate& c : candidates) {
    sum += static_cast<double>(c.weight);
  }
  return sum;
}

bool Better(const VocabScan::Candidate& a, const VocabScan::Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

void SortById(Candidates& candidates) {
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
}

void CutTopK(int64_t k, Candidates& candidates) {
  if (k >= static_cast<int64_t>(candidates.size())) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(),
                   Better);
  candidates.resize(static_cast<size_t>(k));
  // So that sums do not depend on how nth_element left them.
  SortById(candidates);
}

// Keeps the best candidates that together weigh top_p * total. False if all do
// not.
bool CutTopP(float top_p, double total, Candidates& candidates) {
  const double wanted = static_cast<double>(top_p) * total;
  // Sorted in steps: the cut is often among the first few.
  double mass = 0;
  size_t sorted = 0;
  for (size_t step = 64; sorted < candidates.size(); step *= 4) {
    const size_t end = std::min(candidates.size(), sorted + step);
    const auto at = [&](size_t i) {
      return candidates.begin() + static_cast<int64_t>(i);
    };
    std::partial_sort(at(sorted), at(end), candidates.end(), Better);
    for (; sorted < end; ++sorted) {
      mass += static_cast<double>(candidates[sorted].weight);
      if (mass < wanted) continue;
      candidates.resize(sorted + 1);
      return true;
    }
  }
  return false;
}

// `candidates` by ascending id, not empty.
Token DrawAmong(const Candidates& candidates, double uniform) {
  const double target = uniform * WeightOf(candidates);
  double mass = 0;
  Token last = candidates.front().id;
  for (const VocabScan::Candidate& c : candidates) {
    if (!(c.weight > 0)) continue;
    mass += static_cast<double>(c.weight);
    last = c.id;
    if (mass > target) break;
  }
  return last;
}

Token DrawWithCuts(const SamplingRow& params, int64_t vocab, double uniform,
                   VocabScan& scan) {
  Candidates& candidates = scan.candidates();
  if (params.top_k > 0) {
    scan.CollectBest(params.top_k);
    CutTopK(params.top_k, candidates);
  }
  if (params.top_p < 1) {
    const double total = params.top_k > 0 ? WeightOf(candidates) : scan.total();
    if (!CutTopP(params.top_p, total, candidates) && params.top_k == 0) {
      scan.CollectBest(vocab);
      CutTopP(params.top_p, total, candidates);
    }
  }
  std::erase_if(candidates,
                [&](const auto& c) { return c.weight < params.min_p; });
  if (candidates.empty()) return static_cast<Token>(scan.best_index());
  SortById(candidates);
  return DrawAmong(candidates, uniform);
}

}  // namespace

HWY_EXPORT(FillSampleOfTarget);

void FillSample(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillSampleOfTarget)(&table);
}

Token CpuOps::Draw(const float* logits, int64_t vocab,
                   const SamplingRow& params, int worker) {
  if (params.temperature == 0) {
    float best;
    int64_t index;
    kernels_.arg_max(logits, vocab, &best, &index);
    return static_cast<Token>(index);
  }
  VocabScan& scan = scans_[static_cast<size_t>(worker)];
  // Not infinite: 0 * infinity would be NaN.
  const float scale =
      std::min(1 / params.temperature, std::numeric_limits<float>::max());
  scan.Run(kernels_, logits, vocab, scale, MarginOf(params));
  if (!std::isfinite(scan.best())) return static_cast<Token>(scan.best_index());
  const double uniform =
      PhiloxUniform(params.seed, params.candidate, params.output_position);
  return HasCut(params) ? DrawWithCuts(params, vocab, uniform, scan)
                        : scan.DrawAmongAll(uniform);
}

void CpuOps::FillLogprobs(const float* logits, int64_t vocab, Token token,
                          int32_t num_logprobs, SampledRow& out, int worker) {
  VocabScan& scan = scans_[static_cast<size_t>(worker)];
  scan.Run(kernels_, logits, vocab, /*scale=*/1, /*margin=*/-1);
  const double total =
      static_cast<double>(scan.best()) + std::log(scan.total());
  out.logprob = static_cast<float>(static_cast<double>(logits[token]) - total);
  scan.FindLargest(num_logprobs, &out.top);
  for (auto& [id, value] : out.top) {
    value = static_cast<float>(static_cast<double>(value) - total);
  }
}

void CpuOps::SampleRow(float* logits, int64_t vocab, const SamplingRow& params,
                       SampledRow& out, int worker) {
  out.logprob = 0;
  out.top.clear();
  const bool has_edits = HasEdits(params);
  const float* raw = logits;
  if (params.num_logprobs >= 0 && has_edits) {
    float* copy = rows_[static_cast<size_t>(worker)].Get<float>(vocab);
    std::copy_n(logits, vocab, copy);
    raw = copy;
  }
  if (has_edits) ApplyEdits(params, logits, vocab);
  out.token = Draw(logits, vocab, params, worker);
  if (params.num_logprobs >= 0) {
    FillLogprobs(raw, vocab, out.token, params.num_logprobs, out, worker);
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
  pool_.ParallelFor(logits.rows, 1,
                    [&](int64_t begin, int64_t end, int worker) {
                      for (int64_t i = begin; i < end; ++i) {
                        const size_t row = static_cast<size_t>(i);
                        CHECK(targets[row] >= 0 && targets[row] < logits.cols);
                        out[row].token = targets[row];
                        FillLogprobs(logits.f32(i), logits.cols, targets[row],
                                     num_logprobs, out[row], worker);
                      }
                    });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
