#include "model/model.h"

#include "model/model_loader.h"

namespace lorikeet {

absl::StatusOr<std::unique_ptr<Model>> Model::Load(
    FileSystem& fs, const std::string& dir, Ops& ops,
    const ModelOptions& options) {
  return ModelLoader(fs, dir, ops, options).Load();
}

int64_t Model::in_dim(Projection p) const {
  switch (p) {
    case Projection::kO:
      return config_.q_dim();
    case Projection::kDown:
      return config_.intermediate_size;
    case Projection::kEmbedTokens:
      return config_.vocab_size;
    default:
      return config_.hidden_size;
  }
}

int64_t Model::out_dim(Projection p) const {
  switch (p) {
    case Projection::kQ:
      return config_.q_dim();
    case Projection::kK:
    case Projection::kV:
      return config_.kv_dim();
    case Projection::kGate:
    case Projection::kUp:
      return config_.intermediate_size;
    case Projection::kLmHead:
      return config_.vocab_size;
    default:
      return config_.hidden_size;
  }
}

}  // namespace lorikeet
