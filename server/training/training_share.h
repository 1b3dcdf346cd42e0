// A TrainingShare keeps training to a share of the engine thread's time while
// requests are served: serving steps earn time, slices of training spend it. A
// slice runs only when what it will probably take has been earned, so a request
// waits for one slice at most and steps between two slices are whole.
//
// While nothing is served training has all the time, and nothing is counted.
// Pure: times come in. Thread-compatible.

#ifndef LORIKEET_SERVER_TRAINING_TRAINING_SHARE_H_
#define LORIKEET_SERVER_TRAINING_TRAINING_SHARE_H_

#include "absl/time/time.h"

namespace lorikeet {

class TrainingShare {
 public:
  // REQUIRES: 0 < share < 1.
  explicit TrainingShare(double share);

  void AddServing(absl::Duration step);
  bool MayTrain() const { return earned_ >= expected_; }
  // After a slice beside serving.
  void AddTraining(absl::Duration slice);
  // A slice while nothing was served: only how long it took is of interest.
  void AddIdle(absl::Duration slice);

 private:
  void Expect(absl::Duration slice);

  const double rate_;        // earned per second of serving
  absl::Duration earned_;    // below zero: a slice took longer than expected
  absl::Duration expected_;  // of a slice, smoothed
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_TRAINING_TRAINING_SHARE_H_
