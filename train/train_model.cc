#include "train/train_model.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base_parameters.h"
#include "adapters/base_weights.h"
#include "adapters/target_modules.h"
#include "base/check.h"
#include "base/random.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// What only reading an adapter can do, and training cannot.
absl::Status CheckTrainable(const PeftConfig& peft,
                            const TargetModules& targets) {
  const auto refuse = [](absl::string_view what) {
    return absl::UnimplementedError(absl::StrCat(what, " cannot be trained"));
  };
  if (!targets.warnings.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(targets.warnings, "; "));
  }
  for (const TargetModule& module : targets.modules) {
    if (!module.id.is_of_layer()) {
      return refuse(absl::StrCat("a low-rank part of ", module.name));
    }
  }
  if (peft.lora_bias) return refuse("lora_bias");
  if (peft.bias != PeftConfig::Bias::kNone) return refuse("bias");
  if (!peft.modules_to_save.empty()) return refuse("modules_to_save");
  if (!peft.trainable_tokens.empty()) return refuse("trainable_token_indices");
  if (!peft.rank_pattern.empty()) return refuse("rank_pattern");
  if (!peft.alpha_pattern.empty()) return refuse("alpha_pattern");
  return absl::OkStatus();
}

std::vector<ParameterShape> LoraShapes(const PeftConfig& peft,
                                       const TargetModules& targets) {
  std::vector<ParameterShape> shapes;
  for (const TargetModule& module : targets.modules) {
    const std::string prefix =
        absl::StrCat("base_model.model.", module.name, ".");
    shapes.push_back(
        {absl::StrCat(prefix, "lora_A.weight"), {peft.r, module.in_dim}});
    shapes.push_back(
        {absl::StrCat(prefix, "lora_B.weight"), {module.out_dim, peft.r}});
    if (peft.use_dora) {
      shapes.push_back(
          {absl::StrCat(prefix, "lora_magnitude_vector"), {module.out_dim}});
    }
  }
  return shapes;
}

// Norms of the rows of W; B is zero.
absl::Status FillMagnitude(const TrainMatrix& weight, const TrainLora& lora,
                           Tensor host_magnitude, TrainOps& train,
                           Stream& stream) {
  std::vector<double> squares(static_cast<size_t>(weight.out_dim()));
  train.MergedRowSquares(weight, lora.a, lora.b, lora.scaling, squares, stream);
  RETURN_IF_ERROR(stream.Sync());
  for (size_t j = 0; j < squares.size(); ++j) {
    host_magnitude.f32(0)[j] = static_cast<float>(std::sqrt(squares[j]));
  }
  return absl::OkStatus();
}

void FillGaussian(Tensor a, double stddev, Rng& rng) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) {
      a.f32(i)[j] = static_cast<float>(rng.Normal() * stddev);
    }
  }
}

const std::vector<float>& NormOf(const Model& base, NormId id) {
  if (id == NormId::Final()) return base.final_norm();
  const LayerWeights& layer = base.layer(id.layer);
  switch (id.kind) {
    case NormId::Kind::kInput:
      return layer.input_norm;
    case NormId::Kind::kPostAttention:
      return layer.post_norm;
    case NormId::Kind::kQ:
      return layer.q_norm;
    case NormId::Kind::kK:
      return layer.k_norm;
    case NormId::Kind::kFinal:
      break;
  }
  return base.final_norm();
}

// The values of a base parameter, as f32.
void CopyParameter(const Model& base, const Ops& ops,
                   const BaseParameter& parameter, Tensor to) {
  const BaseWeights weights(base, ops);
  if (parameter.kind == BaseParameter::Kind::kWeight) {
    return weights.MergeRows(parameter.linear, {}, 0, to);
  }
  const std::vector<float>& from = parameter.kind == BaseParameter::Kind::kNorm
                                       ? NormOf(base, parameter.norm)
                                       : weights.bias(parameter.linear);
  CHECK_EQ(static_cast<int64_t>(from.size()), to.cols);
  std::copy(from.begin(), from.end(), to.f32(0));
}

}  // namespace

absl::Status TrainModel::ReadFrozen(Ops& ops) {
  ASSIGN_OR_RETURN(frozen_, ResidentVectors::Create(base_, ops));
  embedding_ = {&base_.embedding(), {}};
  lm_head_ = {&base_.lm_head(), {}};
  final_norm_.weight = frozen_.final_norm();
  for (int64_t i = 0; i < config().num_layers; ++i) {
    const LayerWeights& from = base_.layer(i);
    const ResidentVectors::Layer& vectors = frozen_.layer(i);
    TrainLayer layer;
    for (size_t p = 0; p < kNumProjections; ++p) {
      TrainLinear& linear = layer.linears[p];
      linear.id = {static_cast<int32_t>(i), static_cast<Projection>(p)};
      linear.weight.packed = from.linears[p].get();
      linear.bias = vectors.biases[p];
    }
    layer.input_norm.weight = vectors.input_norm;
    layer.post_norm.weight = vectors.post_norm;
    layer.q_norm.weight = vectors.q_norm;
    layer.k_norm.weight = vectors.k_norm;
    layer.window = config().sliding_window[static_cast<size_t>(i)];
    layers_.push_back(std::move(layer));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TrainModel>> TrainModel::Lora(
    const Model& base, const PeftConfig& peft, uint64_t seed, Ops& ops,
    TrainOps& train, Stream& stream) {
  ASSIGN_OR_RETURN(const TargetModules targets,
                   FindTargetModules(peft, base.config()));
  RETURN_IF_ERROR(CheckTrainable(peft, targets));
  auto model = std::unique_ptr<TrainModel>(new TrainModel(base));
  RETURN_IF_ERROR(model->ReadFrozen(ops));
  ASSIGN_OR_RETURN(model->parameters_,
                   ParameterSet::Create(LoraShapes(peft, targets), ops));
  model->first_trained_layer_ = targets.modules.front().id.layer;
  const double r = static_cast<double>(peft.r);
  const double scaling = peft.lora_alpha / (peft.use_rslora ? std::sqrt(r) : r);
  const ParameterSet& parameters = *model->parameters_;
  Rng rng(seed);
  size_t next = 0;
  for (const TargetModule& module : targets.modules) {
    auto lora = std::make_unique<TrainLora>();
    lora->scaling = static_cast<float>(scaling);
    FillGaussian(parameters.host_value(next), 1 / r, rng);
    model->AttachLora(*lora, peft.use_dora, &next);
    TrainLinear& linear = model->linear(module.id);
    if (peft.use_dora) {
      RETURN_IF_ERROR(lora->gain.Reserve(ops, 1, module.out_dim));
      RETURN_IF_ERROR(lora->inverse_norm.Reserve(ops, 1, module.out_dim));
      RETURN_IF_ERROR(FillMagnitude(linear.weight, *lora,
                                    parameters.host_value(next - 1), train,
                                    stream));
      model->dora_.push_back(module.id);
    }
    linear.lora = std::move(lora);
  }
  RETURN_IF_ERROR(model->parameters_->Upload(stream));
  return model;
}

void TrainModel::AttachLora(TrainLora& lora, bool is_dora, size_t* next) {
  const auto attach = [&](Tensor& value, Tensor& gradient) {
    value = parameters_->value(*next);
    gradient = parameters_->gradient(*next);
    ++*next;
  };
  attach(lora.a, lora.a_gradient);
  attach(lora.b, lora.b_gradient);
  if (is_dora) attach(lora.magnitude, lora.magnitude_gradient);
}

absl::StatusOr<std::unique_ptr<TrainModel>> TrainModel::Full(const Model& base,
                                                             Ops& ops,
                                                             Stream& stream) {
  auto model = std::unique_ptr<TrainModel>(new TrainModel(base));
  RETURN_IF_ERROR(model->ReadFrozen(ops));
  std::vector<BaseParameter> list;
  std::vector<ParameterShape> shapes;
  for (const BaseParameter& parameter : BaseParameters(base.config())) {
    const bool is_tied = base.config().tie_word_embeddings &&
                         parameter.kind == BaseParameter::Kind::kWeight &&
                         parameter.linear == LinearId::LmHead();
    if (is_tied) continue;
    list.push_back(parameter);
    shapes.push_back({parameter.name(), parameter.shape()});
  }
  ASSIGN_OR_RETURN(model->parameters_,
                   ParameterSet::Create(std::move(shapes), ops));
  const ParameterSet& parameters = *model->parameters_;
  for (size_t i = 0; i < list.size(); ++i) {
    CopyParameter(base, ops, list[i], parameters.host_value(i));
    model->Attach(list[i], parameters.value(i), parameters.gradient(i));
  }
  RETURN_IF_ERROR(model->parameters_->Upload(stream));
  if (base.config().tie_word_embeddings) {
    model->lm_head_ = model->embedding_;
    model->lm_head_gradient_ = model->embedding_gradient_;
  }
  return model;
}

TrainNorm& TrainModel::norm(NormId id) {
  if (id == NormId::Final()) return final_norm_;
  TrainLayer& layer = layers_[static_cast<size_t>(id.layer)];
  switch (id.kind) {
    case NormId::Kind::kInput:
      return layer.input_norm;
    case NormId::Kind::kPostAttention:
      return layer.post_norm;
    case NormId::Kind::kQ:
      return layer.q_norm;
    case NormId::Kind::kK:
      return layer.k_norm;
    case NormId::Kind::kFinal:
      break;
  }
  return final_norm_;
}

void TrainModel::Attach(const BaseParameter& parameter, Tensor value,
                        Tensor gradient) {
  const LinearId id = parameter.linear;
  if (parameter.kind == BaseParameter::Kind::kNorm) {
    norm(parameter.norm) = {value.f32(0), gradient.f32(0)};
  } else if (parameter.kind == BaseParameter::Kind::kBias) {
    linear(id).bias = value.f32(0);
    linear(id).bias_gradient = gradient.f32(0);
  } else if (id == LinearId::EmbedTokens()) {
    embedding_ = {nullptr, value};
    embedding_gradient_ = gradient;
  } else if (id == LinearId::LmHead()) {
    lm_head_ = {nullptr, value};
    lm_head_gradient_ = gradient;
  } else {
    linear(id).weight = {nullptr, value};
    linear(id).weight_gradient = gradient;
  }
}

absl::Status TrainModel::RefreshGains(size_t i, Ops& ops, TrainOps& train,
                                      Stream& stream) {
  TrainLinear& linear = this->linear(dora_[i]);
  TrainLora& lora = *linear.lora;
  const size_t out = static_cast<size_t>(linear.weight.out_dim());
  const int64_t bytes = static_cast<int64_t>(out * sizeof(float));
  std::vector<double> squares(out);
  std::vector<float> magnitude(out), gain(out), inverse_norm(out);
  train.MergedRowSquares(linear.weight, lora.a, lora.b, lora.scaling, squares,
                         stream);
  ops.CopyOut(lora.magnitude.data, magnitude.data(), bytes, stream);
  RETURN_IF_ERROR(stream.Sync());
  for (size_t j = 0; j < out; ++j) {
    const double inverse = 1 / std::sqrt(squares[j]);
    inverse_norm[j] = static_cast<float>(inverse);
    gain[j] = static_cast<float>(magnitude[j] * inverse);
    if (squares[j] > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("DoRA of ", NameOf(linear.id), ": row ", j,
                     " of the merged weight has norm 0, no gain exists"));
  }
  const int64_t cols = linear.weight.out_dim();
  ops.CopyIn(gain.data(), lora.gain.Resize(1, cols).data, bytes, stream);
  ops.CopyIn(inverse_norm.data(), lora.inverse_norm.Resize(1, cols).data, bytes,
             stream);
  return absl::OkStatus();
}

}  // namespace lorikeet
