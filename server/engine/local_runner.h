// A LocalRunner computes steps in this process, on the calling thread and the
// threads of its Ops. A step is complete when Submit returns.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_LOCAL_RUNNER_H_
#define LORIKEET_SERVER_ENGINE_LOCAL_RUNNER_H_

#include <cstdint>
#include <memory>

#include "kernels/ops.h"
#include "model/forward.h"
#include "model/kv_pool.h"
#include "model/model.h"
#include "server/engine/model_runner.h"

namespace lorikeet {

class LocalRunner final : public ModelRunner {
 public:
  // `model` and `ops` must outlive this.
  LocalRunner(const Model& model, Ops& ops, KvPool pool);
  ~LocalRunner() override;

  StepTicket Submit(const StepInput& input) override;
  StepResult Wait(StepTicket ticket) override;

 private:
  // `*memory`, grown to hold [rows, cols]; an empty tensor and the step's error
  // if there is none.
  Tensor Scratch(std::unique_ptr<Memory>* memory, int64_t rows, int64_t cols);
  void ReadLogits(const StepInput& input, Tensor logits);
  void Sample(const StepInput& input, Tensor logits);

  const Model& model_;
  Ops& ops_;
  KvPool pool_;
  Forward forward_;
  std::unique_ptr<Stream> stream_;
  // Rows of logits that are sampled, and that are copied out.
  std::unique_ptr<Memory> gathered_, copied_;
  int64_t last_ticket_ = 0;
  StepResult result_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_LOCAL_RUNNER_H_
