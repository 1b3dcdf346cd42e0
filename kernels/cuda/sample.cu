// Chooses one token per row of logits; no logit leaves the device.
//
// Block = row, 512 threads (128 for a small vocabulary), thread = every 512th
// token. Nothing is sorted: the
// cuts of top-k and top-p are found by bisection over the bits of a threshold,
// one pass over the row (from L2) per bit, and only if they are on. Sums of
// probabilities are doubles in a fixed order, so a row's token depends on the
// row alone. Reads 4 bytes per token and pass; limit: L2.
//
// The kept tokens are those above the threshold, and of those at it the first
// ones up to `last_tie`; min-p cuts by weight.

#include <limits>

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/philox.h"

namespace lorikeet::cuda {
namespace {

constexpr int kMaxThreads = 512;
// Of its own accord the compiler would aim at three and spill.
constexpr int kLeastBlocks = 2;
constexpr int kMaxWarps = kMaxThreads / kWarpSize;
// Small vocabularies need no more, and tests run faster.
constexpr int kMinThreads = 128;
constexpr int64_t kSmallVocab = 8192;
// Finite, so that the best token's weight stays exp(0).
constexpr float kSharpest = std::numeric_limits<float>::max();

DEVICE int Threads() { return static_cast<int>(blockDim.x); }

struct Scratch {
  uint64_t* words;  // [kMaxWarps]
  double* sums;     // [kMaxWarps]
  int* counts;      // [kMaxWarps]
  float* tile;      // [kMaxThreads]
};

// Ascends with the logit.
DEVICE uint32_t KeyOf(float logit) {
  const uint32_t bits = BitCast<uint32_t>(logit);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

struct Row {
  float* logits;
  int32_t vocab;
  float best;
  float sharpness;  // 1 / temperature

  DEVICE float WeightAt(int32_t i) const {
    return expf((logits[i] - best) * sharpness);
  }
};

// What is kept of a row.
struct Cut {
  uint32_t key = 0;             // tokens above are kept
  int32_t last_tie = kNoToken;  // and tokens at it up to this one
  float min_weight = 0;
  int32_t best_token = 0;  // always kept

  DEVICE bool Keeps(int32_t i, float logit, float weight) const {
    const uint32_t k = KeyOf(logit);
    if (k < key || (k == key && i > last_tie)) return false;
    return weight >= min_weight || i == best_token;
  }
};

// Bias, penalties, bans and the mask, in this order.
DEVICE void Edit(const Row& row, const SampleArgs& args,
                 const SampleLists& lists) {
  if (threadIdx.x == 0) {  // a token may occur twice
    for (int32_t i = args.bias_begin; i < args.bias_end; ++i) {
      row.logits[lists.bias_tokens[i]] += lists.bias_values[i];
    }
  }
  __syncthreads();
  const bool has_penalty = args.repetition_penalty != 1.0f ||
                           args.presence_penalty != 0.0f ||
                           args.frequency_penalty != 0.0f;
  for (int32_t i = args.count_begin + static_cast<int32_t>(threadIdx.x);
       has_penalty && i < args.count_end; i += Threads()) {
    const int2 count = lists.counts[i];
    float x = row.logits[count.x];
    x = x > 0.0f ? x / args.repetition_penalty : x * args.repetition_penalty;
    if (count.y != 0) {
      x -= args.presence_penalty;
      x -= args.frequency_penalty * static_cast<float>(count.y);
    }
    row.logits[count.x] = x;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int32_t i = args.banned_begin; i < args.banned_end; ++i) {
      row.logits[lists.banned[i]] = -INFINITY;
    }
  }
  __syncthreads();
  if (args.allowed_begin < 0) return;
  const uint64_t* const bits = lists.allowed + args.allowed_begin;
  for (int32_t i = threadIdx.x; i < row.vocab; i += Threads()) {
    if ((bits[i / 64] >> (i % 64) & 1) == 0) row.logits[i] = -INFINITY;
  }
  __syncthreads();
}

DEVICE Candidate FindBest(const Row& row, const Scratch& scratch) {
  Candidate mine{-INFINITY, kNoToken};
  for (int32_t i = threadIdx.x; i < row.vocab; i += Threads()) {
    const Candidate other{row.logits[i], i};
    if (IsBetter(other, mine)) mine = other;
  }
  Candidate best = BlockBest(mine, scratch.words);
  if (best.token == kNoToken) best.token = 0;  // all are NaN
  return best;
}

DEVICE int CountFrom(const Row& row, uint32_t key, const Scratch& scratch) {
  int count = 0;
  for (int32_t i = threadIdx.x; i < row.vocab; i += Threads()) {
    count += KeyOf(row.logits[i]) >= key;
  }
  return BlockSum(count, scratch.counts);
}

DEVICE double MassFrom(const Row& row, uint32_t key, const Scratch& scratch) {
  double mass = 0;
  for (int32_t i = threadIdx.x; i < row.vocab; i += Threads()) {
    if (KeyOf(row.logits[i]) >= key) mass += row.WeightAt(i);
  }
  return BlockSum(mass, scratch.sums);
}

// The largest key for which `holds`, which holds for 0 and for no key above one
// where it does not.
template <typename Holds>
DEVICE uint32_t Bisect(const Holds& holds) {
  uint32_t key = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t higher = key | 1u << bit;
    if (holds(higher)) key = higher;
  }
  return key;
}

// The weight of the tokens whose key is `key`.
DEVICE float WeightOfKey(const Row& row, uint32_t key) {
  const uint32_t bits = (key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key;
  return expf((BitCast<float>(bits) - row.best) * row.sharpness);
}

// The token that is the `n`-th with this key, n >= 1, by ascending id.
DEVICE int32_t FindTie(const Row& row, uint32_t key, int n,
                       const Scratch& scratch) {
  int seen = 0;
  for (int32_t begin = 0; begin < row.vocab; begin += Threads()) {
    const int32_t i = begin + static_cast<int32_t>(threadIdx.x);
    const int is_tie = i < row.vocab && KeyOf(row.logits[i]) == key;
    const int count = BlockSum(is_tie, scratch.counts);
    if (seen + count < n) {
      seen += count;
      continue;
    }
    scratch.tile[threadIdx.x] = static_cast<float>(is_tie);
    __syncthreads();
    int32_t found = begin;
    for (int t = 0; t < Threads(); ++t) {
      if (scratch.tile[t] != 0.0f && ++seen == n) {
        found = begin + t;
        break;
      }
    }
    __syncthreads();
    return found;
  }
  return kNoToken;
}

DEVICE Cut FindCut(const Row& row, const SampleArgs& args, int32_t best_token,
                   const Scratch& scratch) {
  Cut cut;
  cut.min_weight = args.min_p;
  cut.best_token = best_token;
  int ties = 0;  // kept of those at the key; 0 = all
  if (args.top_k > 0 && args.top_k < row.vocab) {
    cut.key = Bisect([&](uint32_t key) {
      return CountFrom(row, key, scratch) >= args.top_k;
    });
    ties = args.top_k -
           (cut.key == ~0u ? 0 : CountFrom(row, cut.key + 1, scratch));
  }
  if (args.top_p < 1.0f) {
    const double above_key =
        ties > 0 ? MassFrom(row, cut.key + 1, scratch) +
                       ties * static_cast<double>(WeightOfKey(row, cut.key))
                 : MassFrom(row, 0, scratch);
    const double target = static_cast<double>(args.top_p) * above_key;
    const uint32_t key_of_k = cut.key;
    const uint32_t key = Bisect([&](uint32_t k) {
      return k <= key_of_k || MassFrom(row, k, scratch) >= target;
    });
    const double above = MassFrom(row, key + 1, scratch);
    const float weight = WeightOfKey(row, key);
    float needed =
        weight > 0 ? ceilf(static_cast<float>(target - above) / weight) : 1;
    if (needed < 1) needed = 1;
    const int most = key == key_of_k && ties > 0 ? ties : row.vocab;
    ties = needed < most ? static_cast<int>(needed) : most;
    cut.key = key;
  }
  if (ties > 0) cut.last_tie = FindTie(row, cut.key, ties, scratch);
  return cut;
}

DEVICE double KeptMass(const Row& row, const Cut& cut, const Scratch& scratch) {
  double mass = 0;
  for (int32_t i = threadIdx.x; i < row.vocab; i += Threads()) {
    const float weight = row.WeightAt(i);
    if (cut.Keeps(i, row.logits[i], weight)) mass += weight;
  }
  return BlockSum(mass, scratch.sums);
}

// The first kept token whose running mass, by ascending id, is above `target`;
// the last kept one if rounding leaves none.
DEVICE int32_t Draw(const Row& row, const Cut& cut, double target,
                    const Scratch& scratch) {
  double running = 0;
  int last = cut.best_token;
  for (int32_t begin = 0; begin < row.vocab; begin += Threads()) {
    const int32_t i = begin + static_cast<int32_t>(threadIdx.x);
    float weight = i < row.vocab ? row.WeightAt(i) : 0.0f;
    if (i >= row.vocab || !cut.Keeps(i, row.logits[i], weight)) weight = 0.0f;
    const double mass = BlockSum(static_cast<double>(weight), scratch.sums);
    if (mass == 0) continue;
    scratch.tile[threadIdx.x] = weight;
    __syncthreads();
    double walked = running;
    bool is_found = false;
    for (int t = 0; t < Threads(); ++t) {
      const float w = scratch.tile[t];
      if (w == 0.0f) continue;
      last = begin + t;
      walked += w;
      if (walked > target) {
        is_found = true;
        break;
      }
    }
    __syncthreads();
    if (is_found) return last;
    running = walked;
  }
  return last;
}

__global__ void __launch_bounds__(kMaxThreads, kLeastBlocks)
    SampleKernel(Rows<float> logits, const SampleArgs* all, SampleLists lists,
                 int32_t* tokens) {
  SHARED_ARRAY(uint64_t, words, kMaxWarps);
  SHARED_ARRAY(double, sums, kMaxWarps);
  SHARED_ARRAY(int, counts, kMaxWarps);
  SHARED_ARRAY(float, tile, kMaxThreads);
  const Scratch scratch{words, sums, counts, tile};
  const SampleArgs args = all[blockIdx.x];
  Row row{logits.data + int64_t{blockIdx.x} * logits.stride,
          static_cast<int32_t>(logits.cols), 0.0f, 0.0f};
  Edit(row, args, lists);
  const Candidate best = FindBest(row, scratch);
  int32_t token = best.token;
  if (args.temperature != 0.0f && fabsf(best.value) < INFINITY) {
    row.best = best.value;
    row.sharpness = fminf(1.0f / args.temperature, kSharpest);
    const Cut cut = FindCut(row, args, best.token, scratch);
    const double target =
        KeptMass(row, cut, scratch) *
        DevicePhiloxUniform(args.seed, args.candidate, args.output_position);
    token = Draw(row, cut, target, scratch);
  }
  if (threadIdx.x == 0) Store(tokens + blockIdx.x, token);
}

}  // namespace

cudaError_t Sample(Rows<float> logits, const SampleArgs* args,
                   const SampleLists& lists, int32_t* tokens,
                   cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  const int threads = logits.cols <= kSmallVocab ? kMinThreads : kMaxThreads;
  return Launch(SampleKernel,
                {dim3(static_cast<unsigned>(logits.rows)),
                 dim3(static_cast<unsigned>(threads)), 0, stream},
                logits, args, lists, tokens);
}

}  // namespace lorikeet::cuda
