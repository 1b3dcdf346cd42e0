#include "kernels/cpu/vocab_scan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/check.h"

namespace lorikeet::cpu {
namespace {

// 1 KB, so that the second and third look at a block read from L1, and a later
// look at a few blocks is a look at a small part.
constexpr int64_t kBlock = 256;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

}  // namespace

int64_t VocabScan::BeginOf(size_t block) const {
  return static_cast<int64_t>(block) * kBlock;
}

int64_t VocabScan::SizeOf(size_t block) const {
  return std::min(kBlock, vocab_ - BeginOf(block));
}

// What a block's weights are multiplied with to be relative to the best.
double VocabScan::FactorOf(const Block& block) const {
  return block.sum == 0 ? 0
                        : std::exp(static_cast<double>(block.largest - best_) *
                                   static_cast<double>(scale_));
}

void VocabScan::FindAtLeast(size_t block, float threshold) {
  const int64_t begin = BeginOf(block);
  int32_t* const ids = found_.data() + found_count_;
  const int64_t count =
      kernels_->find_at_least(logits_ + begin, SizeOf(block), threshold, ids);
  for (int64_t i = 0; i < count; ++i) ids[i] += static_cast<int32_t>(begin);
  found_count_ += count;
}

// For any number of candidates, so that a later row does not allocate.
void VocabScan::Reserve() {
  found_.resize(static_cast<size_t>(vocab_));
  weights_.reserve(found_.size());
  candidates_.reserve(found_.size());
}

void VocabScan::Run(const KernelTable& kernels, const float* logits,
                    int64_t vocab, float scale, float margin) {
  kernels_ = &kernels;
  logits_ = logits;
  vocab_ = vocab;
  scale_ = scale;
  best_ = kMinusInfinity;
  found_count_ = 0;
  blocks_.resize(static_cast<size_t>((vocab + kBlock - 1) / kBlock));
  const bool wanted = margin >= 0;
  // In logits, and a little more: what is too much goes by its weight.
  const float reach = margin * 1.0001f / scale + 1e-4f / scale;
  if (wanted) Reserve();
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const float* x = logits + BeginOf(b);
    Block& block = blocks_[b];
    block = {kernels.largest(x, SizeOf(b)), 0};
    if (block.largest == kMinusInfinity) continue;
    best_ = std::max(best_, block.largest);
    block.sum = static_cast<float>(
        kernels.exp_sum(x, block.largest, scale, SizeOf(b), nullptr));
    // The best so far: what this keeps too many of is dropped below.
    if (wanted && block.largest >= best_ - reach) FindAtLeast(b, best_ - reach);
  }
  total_ = 0;
  for (const Block& block : blocks_) {
    total_ += static_cast<double>(block.sum) * FactorOf(block);
  }
  if (!wanted) return;
  int64_t kept = 0;
  for (int64_t i = 0; i < found_count_; ++i) {
    const int32_t id = found_[static_cast<size_t>(i)];
    if (logits[id] >= best_ - reach) found_[static_cast<size_t>(kept++)] = id;
  }
  found_count_ = kept;
  WeighCandidates();
}

int64_t VocabScan::best_index() const {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].largest != best_ || best_ == kMinusInfinity) continue;
    int64_t i = BeginOf(b);
    while (logits_[i] != best_) ++i;
    return i;
  }
  return 0;
}

void VocabScan::WeighCandidates() {
  const size_t count = static_cast<size_t>(found_count_);
  weights_.resize(count);
  for (size_t i = 0; i < count; ++i) weights_[i] = logits_[found_[i]];
  kernels_->exp_sum(weights_.data(), best_, scale_, found_count_,
                    weights_.data());
  candidates_.resize(count);
  for (size_t i = 0; i < count; ++i) candidates_[i] = {found_[i], weights_[i]};
}

void VocabScan::CollectBest(int64_t count) {
  CHECK_GE(count, 1);
  float threshold = kMinusInfinity;
  if (count <= num_blocks()) {
    // As many blocks, and so tokens, reach the count-th of the largest.
    largest_.clear();
    for (const Block& block : blocks_) largest_.push_back(block.largest);
    const auto nth = largest_.begin() + (count - 1);
    std::nth_element(largest_.begin(), nth, largest_.end(), std::greater<>());
    threshold = *nth;
  }
  Reserve();
  found_count_ = 0;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].largest >= threshold) FindAtLeast(b, threshold);
  }
  WeighCandidates();
}

Token VocabScan::DrawAmongAll(double uniform) const {
  const double target = uniform * total_;
  double before = 0;  // the weight of the blocks in front of `chosen`
  size_t chosen = 0;
  double mass = 0;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const double weight =
        static_cast<double>(blocks_[b].sum) * FactorOf(blocks_[b]);
    if (!(weight > 0)) continue;
    chosen = b;
    before = mass;
    mass += weight;
    if (mass > target) break;
  }
  const Block& block = blocks_[chosen];
  const int64_t begin = BeginOf(chosen);
  float weights[kBlock];
  kernels_->exp_sum(logits_ + begin, block.largest, scale_, SizeOf(chosen),
                    weights);
  const double rest = (target - before) / FactorOf(block);
  double sum = 0;
  Token last = static_cast<Token>(begin);
  for (int64_t i = 0; i < SizeOf(chosen); ++i) {
    if (!(weights[i] > 0)) continue;
    sum += static_cast<double>(weights[i]);
    last = static_cast<Token>(begin + i);
    if (sum > rest) break;
  }
  return last;
}

void VocabScan::FindLargest(int64_t count,
                            std::vector<std::pair<Token, float>>* out) const {
  out->clear();
  const size_t wanted =
      static_cast<size_t>(std::clamp<int64_t>(count, 0, vocab_));
  if (wanted == 0) return;
  // A newcomer goes behind its equals, which have lower ids.
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const bool full = out->size() == wanted;
    if (full && !(blocks_[b].largest > out->back().second)) continue;
    const int64_t begin = BeginOf(b);
    for (int64_t i = begin; i < begin + SizeOf(b); ++i) {
      const float x = logits_[i];
      if (std::isnan(x)) continue;
      if (out->size() == wanted) {
        if (!(x > out->back().second)) continue;
        out->pop_back();
      }
      auto at = out->end();
      while (at != out->begin() && (at - 1)->second < x) --at;
      out->insert(at, {static_cast<Token>(i), x});
    }
  }
}

}  // namespace lorikeet::cpu
