// The AdminService is the use cases around the server itself: what it is, how
// busy it is, drain, flush, what is merged, whether the base is what it was.
//
// Thread-safe. Drain waits; VerifyBase reads for a while.

#ifndef LORIKEET_SERVER_FRONTEND_ADMIN_SERVICE_H_
#define LORIKEET_SERVER_FRONTEND_ADMIN_SERVICE_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "model/base_verifier.h"
#include "server/engine/engine.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

struct ServerLoad {
  EngineLoad engine;
  AdapterStore::Residency adapters;
};

class AdminService {
 public:
  // All must outlive this. `drain_timeout` is used if a call names none.
  AdminService(const ModelInfo& model, AdapterStore& adapters, Engine& engine,
               BaseVerifier& verifier, const Clock& clock,
               absl::Duration drain_timeout);

  const ModelInfo& model() const { return model_; }
  absl::Duration Uptime() const;
  ServerLoad Load() const;

  // `callback` runs when a drain begins, before it waits: readiness ends.
  void SetDrainCallback(std::function<void()> callback);
  // Refuses new requests from now on, for good; returns the number of requests
  // that still run after `timeout`, 0 as soon as none does.
  int64_t Drain(std::optional<absl::Duration> timeout,
                const std::function<bool()>& cancelled = nullptr);
  // Ends what runs with finish reason "abort".
  void AbortAll() { engine_.AbortAll(); }

  // Drops unused prefix-cache blocks; returns how many.
  int64_t FlushCache() { return engine_.FlushPrefixCache(); }

  // What is merged, and what was chosen and why.
  MergeState Merges() { return engine_.merge_state(); }
  // Reads all base weights. Errors: UNIMPLEMENTED / BASE_UNREADABLE.
  absl::StatusOr<BaseVerifier::Report> VerifyBase();

 private:
  const ModelInfo& model_;
  AdapterStore& adapters_;
  Engine& engine_;
  BaseVerifier& verifier_;
  const Clock& clock_;
  const absl::Duration drain_timeout_;
  const absl::Duration start_;
  mutable Mutex mu_;
  std::function<void()> drain_callback_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ADMIN_SERVICE_H_
