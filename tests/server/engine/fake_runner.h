// A FakeRunner is a model whose K and V of a position are a hash of all tokens
// up to it and of their adapters, and whose next token is a function of that
// hash and the sampling row. Fast, and wrong blocks give wrong tokens.
//
// Engine thread only, but for the counters.

#ifndef LORIKEET_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_
#define LORIKEET_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "server/engine/model_runner.h"

namespace lorikeet::testing {

class FakeRunner final : public ModelRunner {
 public:
  static constexpr int64_t kBlockSize = 4;
  static constexpr Token kVocab = 1000;

  // What a test reads while the engine runs, or tells the runner.
  struct Shared {
    std::atomic<int64_t> steps{0};
    std::atomic<int64_t> rows{0};
    std::atomic<int64_t> max_segments{0};
    std::atomic<bool> fail_next{false};
  };

  FakeRunner(int64_t num_blocks, std::shared_ptr<Shared> shared)
      : kv_(static_cast<size_t>(num_blocks * kBlockSize)),
        shared_(std::move(shared)) {}

  // The token after `tokens` at temperature 0, where `adapter` (see
  // HashOfTerms, 0 = none) acts on positions from `from` on.
  static Token NextToken(const std::vector<Token>& tokens, uint64_t adapter = 0,
                         size_t from = 0) {
    uint64_t h = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      h = Hash(i < from ? h : h ^ adapter, tokens[i]);
    }
    return Pick(h, SamplingRow());
  }
  // One adapter at scale 1 is its generation.
  static uint64_t HashOfTerms(
      const std::vector<std::pair<uint32_t, float>>& generations_and_scales) {
    uint64_t h = 0;
    for (const auto& [generation, scale] : generations_and_scales) {
      h = h * 31 + generation +
          (scale == 1 ? 0 : std::bit_cast<uint32_t>(scale));
    }
    return h;
  }

  StepTicket Submit(const StepInput& input) override {
    result_ = StepResult();
    ++shared_->steps;
    shared_->rows += static_cast<int64_t>(input.tokens.size());
    shared_->max_segments =
        std::max<int64_t>(shared_->max_segments,
                          static_cast<int64_t>(input.lora.segments.size()));
    if (shared_->fail_next.exchange(false)) {
      result_.status = absl::InternalError("the device is on fire");
      return {};
    }
    for (const auto& [from, to] : input.block_copies) {
      std::copy_n(kv_.begin() + from * kBlockSize, kBlockSize,
                  kv_.begin() + to * kBlockSize);
    }
    std::vector<uint64_t> hashes;
    for (const SequenceRows& s : input.sequences) AddRows(input, s, &hashes);
    for (const StepInput::LogprobRows& rows : input.logprobs) {
      for (size_t i = 0; i < rows.targets.size(); ++i) {
        const uint64_t h = hashes[static_cast<size_t>(
            input.logit_rows[static_cast<size_t>(rows.first) + i])];
        SampledRow row;
        row.token = rows.targets[i];
        row.logprob = -static_cast<float>(h % 1000);
        result_.logprobs.push_back(std::move(row));
      }
    }
    for (const int32_t index : input.copies) {
      result_.copies.resize(
          result_.copies.size() + kVocab,
          static_cast<float>(
              hashes[static_cast<size_t>(
                  input.logit_rows[static_cast<size_t>(index)])] %
              1000));
    }
    for (size_t i = 0; i < input.sampling.size(); ++i) {
      const uint64_t h = hashes[static_cast<size_t>(
          input.logit_rows[static_cast<size_t>(input.sampled[i])])];
      SampledRow row;
      row.token = Pick(h, input.sampling[i]);
      row.logprob = -1;
      result_.sampled.push_back(std::move(row));
    }
    return {};
  }
  StepResult Wait(StepTicket) override { return std::move(result_); }

 private:
  static uint64_t Hash(uint64_t h, Token token) {
    h = (h ^ static_cast<uint64_t>(token + 1)) * 0x9e3779b97f4a7c15ULL;
    return h ^ (h >> 29);
  }
  static Token Pick(uint64_t h, const SamplingRow& p) {
    uint64_t x = h;
    if (p.temperature > 0) {
      x ^= static_cast<uint64_t>(
          1e9f * PhiloxUniform(p.seed, p.candidate, p.output_position));
    }
    for (const auto& [token, count] : p.token_counts) {
      x = x * 31 + static_cast<uint64_t>(token * 7 + count);
    }
    Token token = static_cast<Token>(x % static_cast<uint64_t>(kVocab));
    while (std::ranges::find(p.banned, token) != p.banned.end()) {
      token = (token + 1) % kVocab;
    }
    return token;
  }
  void AddRows(const StepInput& input, const SequenceRows& s,
               std::vector<uint64_t>* hashes) {
    const auto cell = [&](int32_t position) -> uint64_t& {
      return kv_[static_cast<size_t>(
          s.block_table[static_cast<size_t>(position / kBlockSize)] *
              kBlockSize +
          position % kBlockSize)];
    };
    for (int32_t row = s.row_begin; row < s.row_end; ++row) {
      const int32_t position = s.first_position + row - s.row_begin;
      uint64_t h = position == 0 ? 0 : cell(position - 1);
      h = Hash(h ^ AdapterOf(input, row),
               input.tokens[static_cast<size_t>(row)]);
      cell(position) = h;
      hashes->push_back(h);
    }
  }
  static uint64_t AdapterOf(const StepInput& input, int32_t row) {
    for (const LoraSegment& s : input.lora.segments) {
      if (row < s.row_begin || row >= s.row_end) continue;
      std::vector<std::pair<uint32_t, float>> terms;
      for (const LoraTerm& t : s.terms) {
        terms.emplace_back(t.slot->generation, t.scale);
      }
      return HashOfTerms(terms);
    }
    return 0;
  }

  std::vector<uint64_t> kv_;
  const std::shared_ptr<Shared> shared_;
  StepResult result_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_SERVER_ENGINE_FAKE_RUNNER_H_
