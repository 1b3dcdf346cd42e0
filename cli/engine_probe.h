// What the benchmarks of the engine share: steps of the forward pass and of
// sampling over any mix of rows, adapters of random weights, and the bytes and
// multiplications that a step needs.
//
// Single-threaded.

#ifndef LORIKEET_CLI_ENGINE_PROBE_H_
#define LORIKEET_CLI_ENGINE_PROBE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "model/forward.h"
#include "model/kv_pool.h"
#include "model/model.h"

namespace lorikeet {

// REQUIRES: not empty.
double Median(std::vector<double> values);
// How far the middle four fifths of `values` lie apart, as a share of the
// median: how noisy the machine was.
double Spread(std::vector<double> values);

// An adapter of random weights on all seven projections of every layer.
std::shared_ptr<const LoraSlot> RandomAdapter(const Model& model, Ops& ops,
                                              int rank, DType dtype,
                                              uint64_t seed);

// Runs steps over sequences that all stand at the same position.
class StepRunner {
 public:
  // All must outlive this.
  StepRunner(const Model& model, Ops& ops, KvPool& pool);

  // One step of `sequences` sequences of `rows` rows each, sequence i with
  // slots[i modulo their number], or with none.
  void Run(int sequences, int rows, int position,
           const std::vector<const LoraSlot*>& slots);

 private:
  const Model& model_;
  Ops& ops_;
  Forward forward_;
  std::unique_ptr<Stream> stream_;
  std::vector<SamplingRow> params_;
  std::vector<SampledRow> sampled_;
};

// KV blocks that StepRunner needs for `sequences` of `tokens` each.
int64_t BlocksFor(int64_t sequences, int64_t tokens);

// Weight bytes that one decode step reads: all but the embedding rows, which
// are read only through the (possibly tied) lm_head.
double StepWeightBytes(const Model& model);
// Floating-point operations of the linears of all layers for one token.
double LinearFlopsPerToken(const Model& model);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ENGINE_PROBE_H_
