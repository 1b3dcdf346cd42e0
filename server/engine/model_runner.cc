#include "server/engine/model_runner.h"

namespace lorikeet {

void StepInput::Clear() {
  tokens.clear();
  sequences.clear();
  lora.segments.clear();
  block_copies.clear();
  logit_rows.clear();
  logprobs.clear();
  copies.clear();
  sampled.clear();
  sampling.clear();
}

}  // namespace lorikeet
