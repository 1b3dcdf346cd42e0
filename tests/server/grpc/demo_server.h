// A server in this process on the demo model, and a client of it: what the
// tests of the RPCs share.

#ifndef LORIKEET_TESTS_SERVER_GRPC_DEMO_SERVER_H_
#define LORIKEET_TESTS_SERVER_GRPC_DEMO_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "google/rpc/error_details.pb.h"
#include "lorikeet/v1/adapters.grpc.pb.h"
#include "lorikeet/v1/admin.grpc.pb.h"
#include "lorikeet/v1/inference.grpc.pb.h"
#include "server/options.h"
#include "server/server.h"

namespace lorikeet::testing {

// Directory of the demo model, its base and one adapter.
std::string DemoDir();
std::string DemoAdapterDir(const std::string& name);
// demo/goldens.json.
const Json& DemoGoldens();

// One prompt of the goldens with its answer.
struct DemoCase {
  std::string task;  // "base" or the adapter's name
  std::string prompt;
  uint32_t max_tokens = 0;
  std::string text;
  std::vector<uint32_t> ids;  // without the end token
  v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
};
// Cases of base and all adapters (version 1), at most `max_per_task` of each.
std::vector<DemoCase> DemoCases(size_t max_per_task);
// Cases of version 2 of "caesar".
std::vector<DemoCase> CaesarUpdateCases();

// Details of an error that came over the wire.
struct ErrorDetails {
  std::string reason;
  std::string domain;
  std::map<std::string, std::string> metadata;
  std::string field;  // of the first violation
  std::string resource_type;
  std::string resource_name;
  bool has_retry = false;
};
ErrorDetails DetailsOf(const grpc::Status& status);

// What one generation gave.
struct Answer {
  grpc::Status status;
  v1::GenerationStarted started;
  std::vector<v1::Candidate> candidates;
  std::string request_id;  // of the initial metadata
  // Of the only candidate.
  const std::string& text() const { return candidates.at(0).output().text(); }
  std::vector<uint32_t> ids() const;
  v1::FinishReason reason() const {
    return candidates.at(0).finished().finish_reason();
  }
};

class DemoServer {
 public:
  // `tweak` changes the options: port 0, one thread, the demo folder as the
  // adapters' root, a fresh state directory.
  explicit DemoServer(const std::function<void(ServerOptions*)>& tweak =
                          [](ServerOptions*) {});

  Server& server() { return *server_; }
  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  v1::InferenceService::Stub& inference() { return *inference_; }
  v1::AdapterService::Stub& adapters() { return *adapters_; }
  v1::AdminService::Stub& admin() { return *admin_; }
  const std::string& state_dir() const { return state_dir_; }

  // Registers an adapter of demo/adapters under its name; `dir` of another one.
  grpc::Status Register(const std::string& name, const std::string& dir = "");
  void RegisterAll();

  // Runs a request by Generate or GenerateUnary.
  Answer Stream(const v1::GenerateRequest& request);
  Answer Unary(const v1::GenerateRequest& request);

  v1::Load Load();
  // True if nothing runs or waits within a few seconds.
  bool BecomesIdle();
  // Requests that use an adapter.
  uint32_t ActiveRequests(const std::string& name);

 private:
  std::string state_dir_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::AdapterService::Stub> adapters_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

// A greedy request for text.
v1::GenerateRequest TextRequest(const std::string& task,
                                const std::string& prompt,
                                uint32_t max_tokens = 20);
// A request that runs until it has `max_tokens`.
v1::GenerateRequest LongRequest(const std::string& task, uint32_t max_tokens);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_SERVER_GRPC_DEMO_SERVER_H_
