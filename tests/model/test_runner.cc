#include "tests/model/test_runner.h"

#include <algorithm>
#include <cstdio>

#include "base/check.h"
#include "base/file_system.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"

namespace lorikeet::testing {

Backend NewBackend(const std::string& name, int num_threads) {
  Backend backend;
  if (name == "reference") {
    backend.ops = NewReferenceOps();
    return backend;
  }
  CHECK(name == "cpu");
  backend.threads = std::make_unique<ThreadPool>(num_threads);
  backend.ops = NewCpuOps(*backend.threads);
  return backend;
}

TestRunner::TestRunner(const std::string& dir, Backend backend,
                       const ModelOptions& options, DType kv_dtype,
                       int64_t num_blocks)
    : backend_(std::move(backend)), stream_(backend_.ops->NewStream()) {
  PosixFileSystem fs;
  auto model = Model::Load(fs, dir, *backend_.ops, options);
  if (!model.ok())
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
  CHECK(model.ok());
  model_ = *std::move(model);
  auto pool = KvPool::Create(model_->config(), kv_dtype, num_blocks);
  CHECK(pool.ok());
  pool_ = std::make_unique<KvPool>(*std::move(pool));
  forward_ = std::make_unique<Forward>(*model_, *backend_.ops, *pool_);
}

TestSequence TestRunner::NewSequence(int64_t positions) {
  TestSequence sequence;
  const int64_t count = (positions + kKvBlockSize - 1) / kKvBlockSize;
  for (int64_t i = 0; i < count; ++i) sequence.blocks.push_back(next_block_++);
  CHECK_LE(next_block_, pool_->num_blocks());
  // A sequence's blocks ascend in no real server.
  std::reverse(sequence.blocks.begin(), sequence.blocks.end());
  return sequence;
}

std::vector<std::vector<float>> TestRunner::Step(
    const std::vector<Rows>& rows,
    const std::vector<std::pair<int32_t, int32_t>>& block_copies) {
  std::vector<Token> tokens;
  std::vector<SequenceRows> sequences;
  std::vector<int32_t> logit_rows;
  for (const Rows& r : rows) {
    const int32_t begin = static_cast<int32_t>(tokens.size());
    tokens.insert(tokens.end(), r.tokens.begin(), r.tokens.end());
    const int32_t end = static_cast<int32_t>(tokens.size());
    sequences.push_back({begin, end, r.sequence->length, r.sequence->blocks});
    r.sequence->length += end - begin;
    for (int32_t i = end - static_cast<int32_t>(r.logit_rows); i < end; ++i) {
      logit_rows.push_back(i);
    }
  }
  ForwardBatch batch;
  batch.tokens = tokens;
  batch.sequences = sequences;
  batch.logit_rows = logit_rows;
  batch.block_copies = block_copies;
  const Tensor logits = forward_->Run(batch, *stream_);
  CHECK(stream_->Sync().ok());
  CHECK_EQ(logits.rows, static_cast<int64_t>(logit_rows.size()));

  std::vector<std::vector<float>> out;
  int64_t row = 0;
  for (const Rows& r : rows) {
    std::vector<float> mine;
    for (int64_t i = 0; i < r.logit_rows; ++i, ++row) {
      mine.insert(mine.end(), logits.f32(row), logits.f32(row) + vocab());
    }
    out.push_back(std::move(mine));
  }
  return out;
}

std::vector<float> TestRunner::Feed(TestSequence& sequence,
                                    std::vector<Token> tokens,
                                    int64_t logit_rows) {
  return Step({{&sequence, std::move(tokens), logit_rows}})[0];
}

Token Greedy(const float* logits, int64_t vocab) {
  return static_cast<Token>(std::max_element(logits, logits + vocab) - logits);
}

}  // namespace lorikeet::testing
