// A step of the forward pass and of sampling allocates nothing once it has seen
// batches as large: this program counts what it asks of the C library.

#include <atomic>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/model/test_runner.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// glibc's own, which it exports for programs that put theirs in front.
extern "C" void* __libc_malloc(size_t size);
extern "C" void* __libc_memalign(size_t alignment, size_t size);
extern "C" void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}

namespace lorikeet {
namespace {

int64_t AllocationsOfOneStep(DType storage) {
  const char* source = std::getenv("LORIKEET_SOURCE_DIR");
  const std::string dir =
      std::string(source != nullptr ? source : ".") + "/demo/base";
  testing::Backend backend = testing::NewBackend("cpu", 2);
  PosixFileSystem fs;
  ModelOptions options;
  options.dtype = storage;
  auto model = Model::Load(fs, dir, *backend.ops, options);
  auto pool = KvPool::Create((*model)->config(), DType::kF32, 64);
  Forward forward(**model, *backend.ops, *pool);
  const auto stream = backend.ops->NewStream();

  // A prompt's chunk beside two decode rows, as in any step.
  const std::vector<Token> tokens(42, 5);
  std::vector<int32_t> table(8);
  std::iota(table.begin(), table.end(), 0);
  const std::vector<int32_t> second = {8, 9}, third = {10, 11};
  const std::vector<SequenceRows> sequences = {
      {0, 40, 0, table}, {40, 41, 3, second}, {41, 42, 7, third}};
  const std::vector<int32_t> logit_rows = {39, 40, 41};
  ForwardBatch batch;
  batch.tokens = tokens;
  batch.sequences = sequences;
  batch.logit_rows = logit_rows;
  std::vector<SamplingRow> params(3);
  std::vector<SampledRow> sampled(3);
  const auto step = [&] {
    const Tensor logits = forward.Run(batch, *stream);
    backend.ops->Sample(logits, params, sampled, *stream);
  };
  for (int i = 0; i < 3; ++i) step();
  const int64_t before = allocations;
  step();
  return allocations - before;
}

TEST(AllocationTest, ThisProgramCounts) {
  const int64_t before = allocations;
  const std::vector<int> some(1000);
  EXPECT_GT(allocations, before);
}

TEST(AllocationTest, AStepAllocatesNothing) {
  for (const DType storage : {DType::kBF16, DType::kI8}) {
    EXPECT_EQ(AllocationsOfOneStep(storage), 0) << Name(storage);
  }
}

}  // namespace
}  // namespace lorikeet

#endif  // no sanitizer
