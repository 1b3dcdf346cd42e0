// A TestRunner feeds steps to Forward: sequences with blocks of a pool, rows in
// any mix, logits back by row. What the engine does, without its decisions.
//
// Single-threaded.

#ifndef LORIKEET_TESTS_MODEL_TEST_RUNNER_H_
#define LORIKEET_TESTS_MODEL_TEST_RUNNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "base/token.h"
#include "kernels/ops.h"
#include "model/forward.h"
#include "model/kv_pool.h"
#include "model/model.h"

namespace lorikeet::testing {

// A backend with its threads. "reference", or "cpu" with a number of threads.
struct Backend {
  std::unique_ptr<ThreadPool> threads;
  std::unique_ptr<Ops> ops;
};
Backend NewBackend(const std::string& name, int num_threads = 1);

// The blocks and the length of one sequence.
struct TestSequence {
  std::vector<int32_t> blocks;
  int32_t length = 0;  // positions in the cache
};

class TestRunner {
 public:
  // Loads the model in `dir`; ends the program if that fails.
  TestRunner(const std::string& dir, Backend backend,
             const ModelOptions& options = {}, DType kv_dtype = DType::kF32,
             int64_t num_blocks = 512);

  const Model& model() const { return *model_; }
  Ops& ops() { return *backend_.ops; }
  int64_t vocab() const { return model_->config().vocab_size; }

  // Takes blocks, out of order, for `positions` positions.
  TestSequence NewSequence(int64_t positions);

  // The next tokens of one sequence.
  struct Rows {
    TestSequence* sequence = nullptr;
    std::vector<Token> tokens;
    int64_t logit_rows = 1;  // of its last rows
  };
  // Runs one step; returns the logits [logit_rows, vocab] of each of `rows`.
  std::vector<std::vector<float>> Step(
      const std::vector<Rows>& rows,
      const std::vector<std::pair<int32_t, int32_t>>& block_copies = {});

  // One sequence alone: the logits of its last `logit_rows` rows.
  std::vector<float> Feed(TestSequence& sequence, std::vector<Token> tokens,
                          int64_t logit_rows = 1);

 private:
  Backend backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Forward> forward_;
  int32_t next_block_ = 0;
};

// Returns the token with the largest logit, the lowest of equals.
Token Greedy(const float* logits, int64_t vocab);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_MODEL_TEST_RUNNER_H_
