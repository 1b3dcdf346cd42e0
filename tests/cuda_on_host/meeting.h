// Meet: how lanes of a warp come together for one operation.
//
// Each lane leaves a pointer to its operands and waits; the last one to arrive
// performs the operation for all. Rules that are checked: a lane is in its own
// mask, no lane of the mask has ended, and all come to the same operation at
// the same line.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_MEETING_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_MEETING_H_

#include "tests/cuda_on_host/scheduler.h"

namespace cuda_on_host {

// Adds the running lane; returns the meeting if it was the last to come, null
// after others went on without it being last (it was woken).
bool Arrive(const char* what, unsigned mask, void* payload, const Loc& loc,
            WarpMeeting* complete);
// Wakes the others of a complete meeting.
void Adjourn(const WarpMeeting& meeting);

// `perform(payloads)` is called once, with the pointer of each lane.
template <typename Perform>
void Meet(const char* what, unsigned mask, void* payload, const Loc& loc,
          const Perform& perform) {
  WarpMeeting meeting;
  if (!Arrive(what, mask, payload, loc, &meeting)) return;
  perform(meeting.payload);
  Adjourn(meeting);
}

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_MEETING_H_
