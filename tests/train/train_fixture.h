// What the tests of training share: the demo's base on a backend, and
// small data sets in which a token is copied.
//
// Thread-compatible.

#ifndef LORIKEET_TESTS_TRAIN_TRAIN_FIXTURE_H_
#define LORIKEET_TESTS_TRAIN_TRAIN_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/train/train_ops.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/testing/golden.h"
#include "train/training_job.h"

namespace lorikeet::testing {

// A machine with the demo's base on it.
struct TrainMachine {
  explicit TrainMachine(int num_threads = 2,
                        std::optional<DType> dtype = std::nullopt,
                        DType compute_dtype = DType::kF32)
      : pool(num_threads), ops(NewCpuOps(pool)) {
    train = CreateCpuTrainOps(pool, {"", compute_dtype}).value();
    Load(dtype);
  }
  explicit TrainMachine(std::unique_ptr<Ops> device)
      : pool(1), ops(std::move(device)), train(ops->NewTrainOps().value()) {
    Load(std::nullopt);
  }
  // Can this CPU compute in bf16?
  static bool HasBf16() {
    ThreadPool one(1);
    return CreateCpuTrainOps(one, {"", DType::kBF16}).ok();
  }
  TrainingSubject subject(FileSystem* other = nullptr) {
    return {other != nullptr ? *other : fs, *base, tokenizer.get(), *ops,
            *train};
  }

  void Load(std::optional<DType> dtype) {
    ModelOptions options;
    options.dtype = dtype;
    const std::string dir = SourceDir() + "/demo/base";
    base = Model::Load(fs, dir, *ops, options).value();
    tokenizer = Tokenizer::Load(fs, dir).value();
  }

  PosixFileSystem fs;
  ThreadPool pool;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<TrainOps> train;
  std::unique_ptr<Model> base;
  std::unique_ptr<Tokenizer> tokenizer;
};

// Lines of words that are to be written in capitals.
inline std::string CapitalLines(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    const char a = static_cast<char>('a' + i % 26);
    const char b = static_cast<char>('a' + i / 26 % 26);
    lines += std::string("{\"prompt\": \"Word: ") + a + b + "e\\nAnswer:\", " +
             "\"completion\": \" " + static_cast<char>(a - 32) +
             static_cast<char>(b - 32) + "E\"}\n";
  }
  return lines;
}

inline TrainingOptions SmallOptions() {
  TrainingOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.learning_rate = 5e-3;
  options.batch_size = 4;
  options.token_budget = 48;
  options.steps = 6;
  options.seed = 3;
  return options;
}

inline absl::Status RunToEnd(TrainingJob& job) {
  for (;;) {
    const absl::StatusOr<bool> done = job.RunSlice();
    if (!done.ok()) return done.status();
    if (*done) return absl::OkStatus();
  }
}

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_TRAIN_TRAIN_FIXTURE_H_
