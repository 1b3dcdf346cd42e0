// GapWork is what the engine's thread does beside serving, with threads and
// operators to itself: training.
//
// Engine thread only. A call ends soon: requests wait for it.

#ifndef LORIKEET_SERVER_ENGINE_GAP_WORK_H_
#define LORIKEET_SERVER_ENGINE_GAP_WORK_H_

#include "absl/time/time.h"

namespace lorikeet {

class GapWork {
 public:
  virtual ~GapWork() = default;
  // A serving step, which took `step`, is over and the next one waits.
  virtual void AfterStep(absl::Duration step) = 0;
  // Nothing is there to be served. Does one piece of work; false: there is none
  // until Engine::Wake.
  virtual bool WhileIdle() = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_GAP_WORK_H_
