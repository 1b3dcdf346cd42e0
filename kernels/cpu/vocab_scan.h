// A row of logits read once: per block the largest logit and the sum of the
// weights exp((x - block's largest) * scale), taken while the block is in L1,
// and the tokens whose weight is near enough to the best's for a cut (top-k,
// top-p, min-p) to keep them. What is asked afterwards looks again only at the
// blocks that hold the answer. (The sums are those of an online softmax:
// Milakov and Gimelshein 2018, arXiv:1805.02867.)
//
// Weights are relative to the best token's, which weighs 1. The logits must
// stay as they are until the last question. One thread at a time; an object is
// reused from row to row to keep its memory.

#ifndef LORIKEET_KERNELS_CPU_VOCAB_SCAN_H_
#define LORIKEET_KERNELS_CPU_VOCAB_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/token.h"
#include "kernels/cpu/kernel_table.h"

namespace lorikeet::cpu {

class VocabScan {
 public:
  struct Candidate {
    Token id;
    float weight;
  };

  // margin: candidates have a weight of at least exp(-margin); negative = no
  // candidates are wanted. scale > 0, finite: 1 / temperature.
  void Run(const KernelTable& kernels, const float* logits, int64_t vocab,
           float scale, float margin);

  // The largest logit and its lowest index; -infinity and 0 if all are that.
  float best() const { return best_; }
  int64_t best_index() const;
  // The sum of all weights.
  double total() const { return total_; }

  // By ascending id. The caller may change order and number.
  std::vector<Candidate>& candidates() { return candidates_; }
  // Makes candidates of at least the `count` best tokens. Looks at `count`
  // blocks at most if there are as many, else at all.
  void CollectBest(int64_t count);

  // The token at which the weights, summed by ascending id, pass uniform *
  // total; uniform in [0, 1).
  Token DrawAmongAll(double uniform) const;

  // The `count` largest logits, best first, ties by ascending id; no NaN.
  void FindLargest(int64_t count,
                   std::vector<std::pair<Token, float>>* out) const;

 private:
  struct Block {
    float largest;
    float sum;  // relative to `largest`
  };

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t BeginOf(size_t block) const;
  int64_t SizeOf(size_t block) const;
  double FactorOf(const Block& block) const;
  void FindAtLeast(size_t block, float threshold);
  void Reserve();
  void WeighCandidates();

  const KernelTable* kernels_ = nullptr;
  const float* logits_ = nullptr;
  int64_t vocab_ = 0;
  float scale_ = 1;
  float best_ = 0;
  double total_ = 0;
  std::vector<Block> blocks_;
  std::vector<int32_t> found_;  // ids; the first found_count_ hold
  int64_t found_count_ = 0;
  std::vector<float> largest_;  // of blocks, for CollectBest
  std::vector<float> weights_;
  std::vector<Candidate> candidates_;
};

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_VOCAB_SCAN_H_
