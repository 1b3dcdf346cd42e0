// ShadowTraffic runs copies of requests on an alias' shadow, compares the
// tokens with what the caller got, and counts. Nothing of it reaches a caller:
// copies run after everybody else, are bounded in number, and are given up with
// the request that they copy.
//
// Thread-safe. Nothing waits.

#ifndef LORIKEET_SERVER_FRONTEND_SHADOW_TRAFFIC_H_
#define LORIKEET_SERVER_FRONTEND_SHADOW_TRAFFIC_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "server/engine/engine.h"
#include "server/frontend/watched_stream.h"

namespace lorikeet {

enum class ShadowVerdict {
  kEqual,      // the same tokens
  kDifferent,  // others
  kFailed,     // the shadow could not answer
  kSkipped,    // not tried or given up: too many, queue full, caller gone
};

class ShadowTraffic {
 public:
  // Copies that run at once; more are skipped.
  static constexpr int kMaxRunning = 16;

  class Run;

  // `engine` must outlive this.
  explicit ShadowTraffic(Engine& engine);
  // Gives up what runs.
  ~ShadowTraffic();

  // Runs `request` at the lowest priority. `on_verdict` runs once, on any
  // thread, quickly; after the destructor it does not run any more. Returns
  // null if it was skipped: then it has run.
  std::shared_ptr<Run> Start(EngineRequest request,
                             std::function<void(ShadowVerdict)> on_verdict);
  // Tells what the caller got.
  static void Compare(const std::shared_ptr<Run>& run, StreamResult result);

 private:
  // Forgets runs that have a verdict; false if too many are left.
  bool TakePlace(const std::shared_ptr<Run>& run);

  Engine& engine_;
  Mutex mu_;
  std::vector<std::shared_ptr<Run>> runs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_SHADOW_TRAFFIC_H_
