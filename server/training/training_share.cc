#include "server/training/training_share.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet {
namespace {

// Of the newest slice in what the next is expected to take.
constexpr double kNewest = 0.2;
// More slices than this are not saved up: they would come in a burst.
constexpr double kMostSaved = 2;

}  // namespace

TrainingShare::TrainingShare(double share) : rate_(share / (1 - share)) {
  CHECK(share > 0 && share < 1);
}

void TrainingShare::AddServing(absl::Duration step) {
  earned_ += rate_ * step;
  if (expected_ > absl::ZeroDuration()) {
    earned_ = std::min(earned_, kMostSaved * expected_);
  }
}

void TrainingShare::AddTraining(absl::Duration slice) {
  earned_ -= slice;
  Expect(slice);
}

void TrainingShare::AddIdle(absl::Duration slice) { Expect(slice); }

void TrainingShare::Expect(absl::Duration slice) {
  expected_ = expected_ == absl::ZeroDuration()
                  ? slice
                  : (1 - kNewest) * expected_ + kNewest * slice;
}

}  // namespace lorikeet
