// The oracle of training: every operator in double precision, as its formula is
// written. Slow on purpose. Packed weights are those of NewReferenceOps.

#ifndef LORIKEET_KERNELS_REFERENCE_TRAIN_TRAIN_OPS_H_
#define LORIKEET_KERNELS_REFERENCE_TRAIN_TRAIN_OPS_H_

#include <memory>

#include "kernels/train_ops.h"

namespace lorikeet {

std::unique_ptr<TrainOps> NewReferenceTrainOps();

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_REFERENCE_TRAIN_TRAIN_OPS_H_
