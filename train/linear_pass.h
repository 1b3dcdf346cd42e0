// One linear of a TrainModel, forward and backward.
//
// Thread-compatible: owns scratch memory that its calls share.

#ifndef LORIKEET_TRAIN_LINEAR_PASS_H_
#define LORIKEET_TRAIN_LINEAR_PASS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/train_ops.h"
#include "train/owned_matrix.h"
#include "train/train_model.h"

namespace lorikeet {

// What the backward pass of one linear wants to know of its forward pass.
struct LinearTape {
  Tensor shrunk;   // x A^T, [rows, rank]; without data: no low-rank part
  Tensor product;  // DoRA: W x + low-rank part, [rows, out]
};

// Which numbers of dropout a pass over a batch takes.
struct DropoutSource {
  uint64_t seed = 0;
  uint64_t pass = 0;  // different for every batch that is trained on
  float rate = 0;
};

class LinearPass {
 public:
  // Both outlive this.
  LinearPass(TrainOps& train, Ops& ops) : train_(train), ops_(ops) {}

  // Takes the memory for batches of `rows` rows; `drops`: with dropout.
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(const TrainModel& model, int64_t rows, bool drops);

  // y = linear(x), and fills what `tape` points to. `tape` may be null where no
  // backward pass follows. y without data: only the tape is wanted; not with
  // DoRA.
  void Forward(const TrainLinear& linear, ConstTensor x,
               const DropoutSource& dropout, const LinearTape* tape, Tensor y,
               Stream& stream);

  // Adds the gradients of the linear's parameters and writes dx, or adds to it
  // with `accumulate`; dx without data: nobody wants it. dy may be changed.
  void Backward(const TrainLinear& linear, ConstTensor x,
                const DropoutSource& dropout, const LinearTape& tape, Tensor dy,
                bool accumulate, Tensor dx, Stream& stream);

 private:
  // x as the low-rank part sees it.
  ConstTensor Dropped(const TrainLinear& linear, ConstTensor x,
                      const DropoutSource& dropout, Stream& stream);

  TrainOps& train_;
  Ops& ops_;
  OwnedMatrix shrunk_, expanded_;  // [rows, rank]
  OwnedMatrix dropped_, through_;  // [rows, in]
  OwnedMatrix sums_;               // [1, out]
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_LINEAR_PASS_H_
