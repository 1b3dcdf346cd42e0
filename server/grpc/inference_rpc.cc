#include "server/grpc/inference_rpc.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "lorikeet/v1/inference.grpc.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"
#include "server/grpc/generate_reactor.h"
#include "server/grpc/page.h"

namespace lorikeet {
namespace {

using Stub = v1::InferenceService;
using RawService = Stub::WithRawCallbackMethod_Generate<
    Stub::WithRawCallbackMethod_GenerateUnary<
        Stub::WithRawCallbackMethod_Tokenize<
            Stub::WithRawCallbackMethod_Detokenize<
                Stub::WithRawCallbackMethod_ListModels<Stub::Service>>>>>;

class InferenceRpc final : public RawService {
 public:
  InferenceRpc(GenerateService& service, const InferenceQueues& queues)
      : service_(service), queues_(queues) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* in) override {
    return StartGenerate(context, in, service_, {queues_.admit, queues_.pump});
  }

  grpc::ServerUnaryReactor* GenerateUnary(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* in,
                                          grpc::ByteBuffer* out) override {
    return StartGenerateUnary(context, in, out, service_,
                              {queues_.admit, queues_.pump});
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* in,
                                     grpc::ByteBuffer* out) override {
    return RunUnary<v1::TokenizeRequest, v1::TokenizeResponse>(
        context, in, out, queues_.small,
        [this](const v1::TokenizeRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::TokenizeResponse> {
          TokenizeInput input;
          input.task = request.task();
          input.text = request.text();
          input.omit_special_tokens = request.omit_special_tokens();
          input.parse_special_tokens = request.parse_special_tokens();
          ASSIGN_OR_RETURN(const std::vector<Token> tokens,
                           service_.Tokenize(input));
          v1::TokenizeResponse response;
          for (const Token token : tokens) {
            response.add_token_ids(static_cast<uint32_t>(token));
            response.add_token_bytes(service_.TokenBytes(token));
          }
          response.set_max_model_len(
              static_cast<uint32_t>(service_.model().max_model_len));
          return response;
        });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* in,
                                       grpc::ByteBuffer* out) override {
    return RunUnary<v1::DetokenizeRequest, v1::DetokenizeResponse>(
        context, in, out, queues_.small,
        [this](const v1::DetokenizeRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::DetokenizeResponse> {
          v1::DetokenizeResponse response;
          ASSIGN_OR_RETURN(*response.mutable_text(),
                           service_.Detokenize(request.task(),
                                               {request.token_ids().begin(),
                                                request.token_ids().end()},
                                               request.skip_special_tokens()));
          return response;
        });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* in,
                                       grpc::ByteBuffer* out) override {
    return RunUnary<v1::ListModelsRequest, v1::ListModelsResponse>(
        context, in, out, queues_.small,
        [this](const v1::ListModelsRequest& request, const CallLimits&) {
          return List(request);
        });
  }

 private:
  absl::StatusOr<v1::ListModelsResponse> List(
      const v1::ListModelsRequest& request) {
    // The base comes first, and so stands before every token.
    const std::string& base = service_.model().id;
    ASSIGN_OR_RETURN(
        Page<ModelEntry> page,
        CutPage<ModelEntry>(
            service_.ListModels(), request.page_size(), request.page_token(),
            [](const ModelEntry& entry) { return entry.id; },
            [&](const std::string& a, const std::string& b) {
              return b != base && (a == base || a < b);
            }));
    v1::ListModelsResponse response;
    for (const ModelEntry& entry : page.entries) {
      v1::Model* const model = response.add_models();
      model->set_id(entry.id);
      model->set_root(IsValidUtf8(entry.root) ? entry.root
                                              : Escape(entry.root));
      model->set_parent(entry.parent);
      model->set_max_model_len(
          static_cast<uint32_t>(service_.model().max_model_len));
      model->set_create_unix_seconds(absl::ToUnixSeconds(entry.create_time));
    }
    response.set_next_page_token(page.next_page_token);
    return response;
  }

  GenerateService& service_;
  const InferenceQueues queues_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewInferenceRpc(GenerateService& service,
                                               const InferenceQueues& queues) {
  return std::make_unique<InferenceRpc>(service, queues);
}

}  // namespace lorikeet
