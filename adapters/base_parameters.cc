#include "adapters/base_parameters.h"

#include "absl/strings/str_cat.h"

namespace lorikeet {
namespace {

using Kind = BaseParameter::Kind;

bool IsMlp(Projection p) {
  return p == Projection::kGate || p == Projection::kUp ||
         p == Projection::kDown;
}

bool HasBias(const ModelConfig& model, Projection p) {
  if (IsMlp(p)) return model.mlp_bias;
  return p == Projection::kO ? model.o_bias : model.qkv_bias;
}

BaseParameter Weight(const ModelConfig& model, LinearId id) {
  BaseParameter result{NameOf(id), Kind::kWeight, id, {}, 0, 0};
  result.rows = OutDim(model, id.projection);
  result.cols = InDim(model, id.projection);
  if (id == LinearId::EmbedTokens()) std::swap(result.rows, result.cols);
  return result;
}

BaseParameter Norm(std::string module, NormId id, int64_t size) {
  return {std::move(module), Kind::kNorm, {}, id, 1, size};
}

}  // namespace

std::string BaseParameter::name() const {
  return absl::StrCat(module, kind == Kind::kBias ? ".bias" : ".weight");
}

std::vector<int64_t> BaseParameter::shape() const {
  if (kind == Kind::kWeight) return {rows, cols};
  return {cols};
}

int64_t OutDim(const ModelConfig& model, Projection p) {
  switch (p) {
    case Projection::kQ:
      return model.q_dim();
    case Projection::kK:
    case Projection::kV:
      return model.kv_dim();
    case Projection::kGate:
    case Projection::kUp:
      return model.intermediate_size;
    case Projection::kLmHead:
      return model.vocab_size;
    case Projection::kO:
    case Projection::kDown:
    case Projection::kEmbedTokens:
      return model.hidden_size;
  }
  return 0;
}

int64_t InDim(const ModelConfig& model, Projection p) {
  switch (p) {
    case Projection::kO:
      return model.q_dim();
    case Projection::kDown:
      return model.intermediate_size;
    case Projection::kEmbedTokens:
      return model.vocab_size;
    case Projection::kQ:
    case Projection::kK:
    case Projection::kV:
    case Projection::kGate:
    case Projection::kUp:
    case Projection::kLmHead:
      return model.hidden_size;
  }
  return 0;
}

std::string NameOf(LinearId id) {
  if (id == LinearId::EmbedTokens()) return "model.embed_tokens";
  if (id == LinearId::LmHead()) return "lm_head";
  return absl::StrCat("model.layers.", id.layer,
                      IsMlp(id.projection) ? ".mlp." : ".self_attn.",
                      kProjectionNames[static_cast<size_t>(id.projection)]);
}

std::vector<BaseParameter> BaseParameters(const ModelConfig& model) {
  std::vector<BaseParameter> result;
  result.push_back(Weight(model, LinearId::EmbedTokens()));
  for (int32_t layer = 0; layer < model.num_layers; ++layer) {
    for (int p = 0; p < kNumProjections; ++p) {
      const LinearId id{layer, static_cast<Projection>(p)};
      result.push_back(Weight(model, id));
      if (!HasBias(model, id.projection)) continue;
      result.push_back(
          {NameOf(id), Kind::kBias, id, {}, 1, OutDim(model, id.projection)});
    }
    const std::string module = absl::StrCat("model.layers.", layer, ".");
    const auto norm = [&](absl::string_view name, NormId::Kind kind,
                          int64_t size) {
      result.push_back(Norm(absl::StrCat(module, name), {layer, kind}, size));
    };
    norm("input_layernorm", NormId::Kind::kInput, model.hidden_size);
    norm("post_attention_layernorm", NormId::Kind::kPostAttention,
         model.hidden_size);
    if (!model.qk_norm) continue;
    norm("self_attn.q_norm", NormId::Kind::kQ, model.head_dim);
    norm("self_attn.k_norm", NormId::Kind::kK, model.head_dim);
  }
  result.push_back(Norm("model.norm", NormId::Final(), model.hidden_size));
  result.push_back(Weight(model, LinearId::LmHead()));
  return result;
}

}  // namespace lorikeet
