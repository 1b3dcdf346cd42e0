// WatchAdapters: an AdapterWatch tells every watching call that something has
// changed; each call then fetches what it has not sent yet, one write in flight
// each. A call that falls behind what the store keeps ends with OUT_OF_RANGE.
//
// Thread-safe.

#ifndef LORIKEET_SERVER_GRPC_ADAPTER_WATCH_H_
#define LORIKEET_SERVER_GRPC_ADAPTER_WATCH_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <vector>

#include "base/background_queue.h"
#include "base/mutex.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

class AdapterWatch {
 public:
  // All must outlive this.
  AdapterWatch(AdapterService& service, const ModelInfo& model,
               BackgroundQueue& queue);
  ~AdapterWatch();

  // Starts one call.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* in);

 private:
  class Call;
  void Loop();
  // Calls that still run.
  std::vector<std::shared_ptr<Call>> Calls();

  AdapterService& service_;
  const ModelInfo& model_;
  BackgroundQueue& queue_;
  std::atomic<bool> ending_ = false;
  Mutex mu_;
  std::vector<std::weak_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<BackgroundThread> thread_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_ADAPTER_WATCH_H_
