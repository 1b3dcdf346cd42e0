#include "server/grpc/upload_reactor.h"

#include <memory>
#include <utility>
#include <variant>

#include "base/status.h"
#include "lorikeet/v1/adapters.pb.h"
#include "server/frontend/error.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

// Either a read is in flight or work is on the queue, never both: so the
// members need no lock. gRPC's OnCancel does nothing, the read then ends.
class UploadCall final : public grpc::ServerReadReactor<grpc::ByteBuffer>,
                         public std::enable_shared_from_this<UploadCall> {
 public:
  UploadCall(grpc::CallbackServerContext& context, grpc::ByteBuffer* out,
             AdapterService& service, const ModelInfo& model,
             BackgroundQueue& queue)
      : context_(context),
        out_(out),
        service_(service),
        model_(model),
        queue_(queue) {}

  void Start() {
    self_ = shared_from_this();
    const absl::Status status = SetRequestId(context_).status();
    if (status.ok()) {
      StartRead(&message_);
    } else {
      Finish(ToGrpcStatus(status));
    }
  }

  void OnReadDone(bool ok) override {
    const bool added = queue_.TryAdd([self = shared_from_this(), ok] {
      ok ? self->TakeMessage() : self->TakeEnd();
    });
    if (!added) End(QueueFull());
  }
  void OnDone() override {
    const std::shared_ptr<UploadCall> self = std::move(self_);
  }

 private:
  void TakeMessage() {
    v1::UploadAdapterRequest request;
    absl::Status status = ReadRequest(message_, &request);
    message_.Clear();
    if (status.ok()) status = Take(request);
    if (!status.ok()) {
      End(status);
      return;
    }
    StartRead(&message_);
  }

  absl::Status Take(const v1::UploadAdapterRequest& request) {
    if (request.part_case() == v1::UploadAdapterRequest::kChunk) {
      if (upload_ == nullptr) {
        return FieldError("chunk", "comes before a header or an update");
      }
      const v1::FileChunk& chunk = request.chunk();
      return upload_->Add(chunk.file_name(), chunk.offset(), chunk.data(),
                          chunk.crc32c());
    }
    if (request.part_case() == v1::UploadAdapterRequest::PART_NOT_SET) {
      return FieldError("part", "is missing");
    }
    if (upload_ != nullptr) {
      return FieldError(request.has_header() ? "header" : "update",
                        "is not the first message");
    }
    if (request.has_header()) {
      ASSIGN_OR_RETURN(target_,
                       ToCreateInput(request.header(), context_.peer()));
    } else {
      ASSIGN_OR_RETURN(target_,
                       ToUpdateInput(request.update(), context_.peer()));
    }
    ASSIGN_OR_RETURN(upload_, service_.BeginUpload());
    return absl::OkStatus();
  }

  void TakeEnd() {
    // The end of the stream also comes when the caller is gone: then what was
    // sent is not all.
    if (context_.IsCancelled()) {
      End(absl::CancelledError("the caller went away"));
      return;
    }
    const absl::StatusOr<AdapterInfo> info = Register();
    if (info.ok()) {
      v1::Adapter adapter;
      ToProto(*info, model_, service_.LoadError(*info), &adapter);
      *out_ = ToByteBuffer(adapter);
    }
    End(info.status());
  }

  absl::StatusOr<AdapterInfo> Register() {
    if (upload_ == nullptr) {
      return FieldError("part", "is missing: the stream is empty",
                        "UPLOAD_INCOMPLETE");
    }
    if (const auto* create = std::get_if<CreateAdapterInput>(&target_)) {
      return service_.FinishUpload(*create, *upload_);
    }
    return service_.FinishUpload(std::get<UpdateAdapterInput>(target_),
                                 *upload_);
  }

  void End(const absl::Status& status) {
    upload_.reset();  // nothing is left when the caller hears of it
    Finish(ToGrpcStatus(status));
  }

  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer* const out_;
  AdapterService& service_;
  const ModelInfo& model_;
  BackgroundQueue& queue_;
  std::shared_ptr<UploadCall> self_;
  grpc::ByteBuffer message_;  // of the read in flight
  std::variant<CreateAdapterInput, UpdateAdapterInput> target_;
  std::unique_ptr<AdapterUpload> upload_;  // null before the first message
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* StartUpload(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* out,
    AdapterService& service, const ModelInfo& model, BackgroundQueue& queue) {
  const auto call =
      std::make_shared<UploadCall>(*context, out, service, model, queue);
  call->Start();
  return call.get();
}

}  // namespace lorikeet
