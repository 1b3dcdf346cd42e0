// One thread decides when to send; gRPC's own threads run the calls. Each call
// owns its result until it ends, so that nothing but the list of results and
// the count in flight is shared.

#include "loadgen/load_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "loadgen/channel_arguments.h"
#include "loadgen/rpc_status.h"
#include "lorikeet/v1/inference.grpc.pb.h"

namespace lorikeet {
namespace {

v1::GenerateRequest ToProto(const LoadRequest& load, const LoadTask& task,
                            float temperature) {
  v1::GenerateRequest request;
  request.set_task(task.name);
  if (load.token_ids.empty()) {
    request.set_text(load.text);
  } else {
    request.mutable_token_ids()->mutable_ids()->Add(load.token_ids.begin(),
                                                    load.token_ids.end());
  }
  request.mutable_sampling()->set_temperature(temperature);
  request.mutable_stop()->set_max_tokens(load.max_tokens);
  request.mutable_stop()->set_ignore_eos(load.ignore_eos);
  return request;
}

// What all calls of one load share.
class Collector {
 public:
  void Start() {
    MutexLock lock(&mu_);
    ++in_flight_;
  }
  void Finish(LoadResult result) {
    MutexLock lock(&mu_);
    results_.push_back(std::move(result));
    --in_flight_;
    changed_.SignalAll();
  }
  // Waits until fewer than `bound` are in flight.
  void WaitBelow(uint32_t bound) {
    MutexLock lock(&mu_);
    while (in_flight_ >= bound) changed_.Wait(&mu_);
  }
  std::vector<LoadResult> Take() {
    MutexLock lock(&mu_);
    return std::move(results_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  uint32_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<LoadResult> results_ ABSL_GUARDED_BY(mu_);
};

// Deletes itself when done.
class Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(const Clock* clock, absl::Duration origin, const std::string* server,
       Collector* collector, v1::GenerateRequest request, LoadResult result)
      : clock_(*clock),
        origin_(origin),
        server_(*server),
        collector_(*collector),
        request_(std::move(request)),
        result_(std::move(result)) {}

  void Start(v1::InferenceService::Stub& stub, absl::Duration timeout) {
    if (timeout != absl::InfiniteDuration()) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            absl::ToChronoMicroseconds(timeout));
    }
    stub.async()->Generate(&context_, &request_, this);
    result_.sent = Now();
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    Take();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    result_.end = Now();
    result_.status = FromRpcStatus(status, server_);
    // The collector may be the last that Run waits for, and then the channel
    // goes: what the context holds of it must be gone before.
    Collector& collector = collector_;
    LoadResult result = std::move(result_);
    delete this;
    collector.Finish(std::move(result));
  }

 private:
  absl::Duration Now() const { return clock_.Now() - origin_; }

  void Take() {
    if (response_.has_started()) {
      result_.prompt_tokens = response_.started().prompt_tokens();
      result_.cached_tokens = response_.started().cached_tokens();
    }
    if (!response_.has_delta()) return;
    const int tokens = response_.delta().token_ids_size();
    if (tokens == 0) return;
    const absl::Duration now = Now();
    if (result_.output_tokens == 0) {
      result_.first_token = now;
    } else {
      result_.gaps_s.push_back(
          static_cast<float>(absl::ToDoubleSeconds(now - result_.last_token)));
    }
    result_.last_token = now;
    result_.output_tokens += static_cast<uint32_t>(tokens);
  }

  const Clock& clock_;
  const absl::Duration origin_;
  const std::string& server_;
  Collector& collector_;
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  LoadResult result_;
};

std::shared_ptr<grpc::Channel> NewChannel(const std::string& server) {
  grpc::ChannelArguments args = ChannelArgumentsFor(server);
  // Channels of equal arguments would share one connection.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(),
                                   args);
}

}  // namespace

struct LoadClient::Impl {
  LoadClientOptions options;
  std::vector<std::unique_ptr<v1::InferenceService::Stub>> stubs;
  SystemClock clock;
};

LoadClient::LoadClient(const LoadClientOptions& options)
    : impl_(std::make_unique<Impl>()) {
  CHECK_GE(options.connections, 1);
  CHECK_GE(options.max_in_flight, 1u);
  impl_->options = options;
  for (int i = 0; i < options.connections; ++i) {
    impl_->stubs.push_back(
        v1::InferenceService::NewStub(NewChannel(options.server)));
  }
}

LoadClient::~LoadClient() = default;

std::vector<LoadResult> LoadClient::Run(Workload& workload) {
  const LoadClientOptions& options = impl_->options;
  const absl::Duration origin = impl_->clock.Now();
  const auto now = [&] { return impl_->clock.Now() - origin; };
  Collector collector;
  for (uint64_t sent = 0;; ++sent) {
    // A closed loop decides about the next request when there is room.
    if (!workload.options().requests_per_second) {
      collector.WaitBelow(options.max_in_flight);
    }
    std::optional<LoadRequest> load = workload.Next(now());
    if (!load) break;
    LoadResult result;
    result.task = load->task;
    result.due = load->start.value_or(now());
    // Prepared before it is due.
    v1::GenerateRequest request = ToProto(
        *load, workload.options().tasks[load->task], options.temperature);
    if (const absl::Duration wait = result.due - now();
        wait > absl::ZeroDuration()) {
      lorikeet::SleepFor(wait);
    }
    collector.WaitBelow(options.max_in_flight);
    collector.Start();
    auto* call = new Call(&impl_->clock, origin, &options.server, &collector,
                          std::move(request), std::move(result));
    call->Start(*impl_->stubs[sent % impl_->stubs.size()],
                options.request_timeout);
  }
  collector.WaitBelow(1);
  return collector.Take();
}

}  // namespace lorikeet
