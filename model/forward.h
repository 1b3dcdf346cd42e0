// One forward pass over the rows of a step, for any mix of sequences, prefill
// and decode, adapters and base.
//
// Engine thread only.

#ifndef LORIKEET_MODEL_FORWARD_H_
#define LORIKEET_MODEL_FORWARD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/token.h"
#include "kernels/ops.h"
#include "model/kv_pool.h"
#include "model/model.h"

namespace lorikeet {

// The rows of a step. `sequences` cover [0, tokens.size()) in order. Spans
// must stay valid until Run returns.
struct ForwardBatch {
  std::span<const Token> tokens;
  std::span<const SequenceRows> sequences;
  LoraBatch lora;
  // Blocks to copy before anything else, (from, to).
  std::span<const std::pair<int32_t, int32_t>> block_copies;
  // Rows whose logits are wanted, ascending.
  std::span<const int32_t> logit_rows;
};

class Forward {
 public:
  // All must outlive this. Workspace grows to the largest batch seen.
  Forward(const Model& model, Ops& ops, KvPool& pool);
  ~Forward();

  // Returns raw logits [logit_rows.size(), vocab_size], f32, valid until the
  // next Run; the caller may overwrite them.
  // If the device has no memory left, status() says so and there are no logits.
  // REQUIRES: every block of every sequence is allocated in the pool.
  Tensor Run(const ForwardBatch& batch, Stream& stream);
  // Of the last Run. Errors: RESOURCE_EXHAUSTED, and as
  // ResidentVectors::Create.
  const absl::Status& status() const { return status_; }

 private:
  struct Workspace;
  const Model& model_;
  Ops& ops_;
  KvPool& pool_;
  std::unique_ptr<Workspace> workspace_;
  absl::Status status_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_FORWARD_H_
