#include "adapters/adapter_tensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "adapters/peft_reader.h"
#include "adapters/target_modules.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";
constexpr char kTokensKey[] = "trainable_token_indices";

absl::Status FieldError(absl::string_view field, absl::string_view rest) {
  return absl::InvalidArgumentError(
      absl::StrCat(kAdapterConfigFile, " field ", Quote(field), " ", rest));
}

absl::Status TensorError(const SafetensorsEntry& entry,
                         absl::string_view rest) {
  return absl::InvalidArgumentError(absl::StrCat(kAdapterModelFile, ": tensor ",
                                                 Quote(entry.name), " ", rest));
}

absl::Status MissingTensor(absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(kAdapterModelFile, ": tensor ",
                   Quote(absl::StrCat(kPrefix, name)), " is missing"));
}

// Why nobody asked for a tensor.
absl::Status UnknownTensor(const SafetensorsEntry& entry,
                           absl::string_view name) {
  for (const absl::string_view suffix :
       {".lora_A.weight", ".lora_B.weight", ".lora_embedding_A",
        ".lora_embedding_B"}) {
    if (!absl::ConsumeSuffix(&name, suffix)) continue;
    return TensorError(entry, absl::StrCat("belongs to ", Quote(name),
                                           ", which the configuration does not "
                                           "adapt"));
  }
  return TensorError(entry, "has no use by the configuration");
}

// Copies `from` to `to` as `dtype`.
void CopyAs(ConstTensor from, DType dtype, char* to) {
  const int64_t count = from.rows * from.cols;
  if (dtype == from.dtype) {
    std::memcpy(to, from.data, static_cast<size_t>(count * SizeBytes(dtype)));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    StoreElement(dtype, to, i, LoadElement(from.dtype, from.data, i));
  }
}

bool AreEqual(ConstTensor a, ConstTensor b, bool transposed) {
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) {
      if (a.At(i, j) != (transposed ? b.At(j, i) : b.At(i, j))) return false;
    }
  }
  return true;
}

template <typename List, typename Member>
auto* FindId(List& list, LinearId id, Member member) {
  const auto it = std::ranges::find_if(
      list, [&](const auto& item) { return member(item) == id; });
  return it == list.end() ? nullptr : &*it;
}

}  // namespace

absl::StatusOr<AdapterTensors> AdapterTensors::List(const PeftConfig& peft,
                                                    const ModelConfig& model,
                                                    AdapterWeights* weights) {
  AdapterTensors list(peft, model, weights);
  for (LoraModule& module : weights->modules) {
    RETURN_IF_ERROR(list.ListModule(&module));
  }
  RETURN_IF_ERROR(list.ListParameters());
  RETURN_IF_ERROR(list.ListTrainableTokens());
  return list;
}

bool AdapterTensors::IsAdapted(LinearId id) const {
  return std::ranges::find(weights_->modules, id, &LoraModule::id) !=
         weights_->modules.end();
}

absl::Status AdapterTensors::ListModule(LoraModule* module) {
  const int64_t in = InDim(model_, module->id.projection);
  const int64_t out = OutDim(model_, module->id.projection);
  const bool is_embedding = module->id == LinearId::EmbedTokens();
  const auto add = [&](absl::string_view suffix, std::vector<int64_t> shape,
                       const char* meaning, Item::Storage storage,
                       ConstTensor* to) {
    Add({absl::StrCat(module->name, suffix),
         std::move(shape),
         meaning,
         storage,
         to,
         {},
         nullptr});
  };
  if (is_embedding && peft_.lora_bias) {
    return FieldError("lora_bias",
                      "cannot be used where \"target_modules\" "
                      "takes embed_tokens");
  }
  if (is_embedding && !peft_.alora_invocation_tokens.empty()) {
    return FieldError("alora_invocation_tokens",
                      "cannot be used where \"target_modules\" takes "
                      "embed_tokens");
  }
  add(is_embedding ? ".lora_embedding_A" : ".lora_A.weight", {module->rank, in},
      is_embedding ? "rank, vocab" : "rank, in", Item::Storage::kAdapter,
      &module->a);
  add(is_embedding ? ".lora_embedding_B" : ".lora_B.weight",
      {out, module->rank}, "out, rank", Item::Storage::kAdapter, &module->b);
  if (peft_.lora_bias) {
    add(".lora_B.bias", {out}, "out", Item::Storage::kF32, &module->b_bias);
  }
  if (peft_.use_dora) {
    add(".lora_magnitude_vector", {out}, "out", Item::Storage::kF32,
        &module->magnitude);
  }
  if (module->id.is_of_layer()) return absl::OkStatus();
  Add({absl::StrCat(module->name, ".base_layer.weight"),
       {model_.vocab_size, model_.hidden_size},
       "vocab, hidden",
       Item::Storage::kAsInFile,
       nullptr,
       module->id,
       nullptr});
  return absl::OkStatus();
}

bool AdapterTensors::IsSaved(const BaseParameter& parameter) const {
  if (IsSavedModule(peft_, parameter.module)) return true;
  if (!peft_.ensure_weight_tying || !model_.tie_word_embeddings ||
      parameter.kind != BaseParameter::Kind::kWeight ||
      parameter.linear.is_of_layer()) {
    return false;
  }
  return IsSavedModule(peft_, NameOf(LinearId::EmbedTokens())) ||
         IsSavedModule(peft_, NameOf(LinearId::LmHead()));
}

absl::Status AdapterTensors::ListParameters() {
  using Kind = BaseParameter::Kind;
  std::vector<std::string> names;
  for (BaseParameter& parameter : BaseParameters(model_)) {
    const bool is_adapted =
        parameter.kind != Kind::kNorm && IsAdapted(parameter.linear);
    const bool is_saved = IsSaved(parameter);
    if (is_saved && is_adapted) {
      return absl::UnimplementedError(absl::StrCat(
          kAdapterConfigFile, " field \"modules_to_save\" takes ",
          Quote(parameter.module), ", which \"target_modules\" takes too"));
    }
    const bool is_bias =
        parameter.kind == Kind::kBias &&
        (peft_.bias == PeftConfig::Bias::kAll ||
         (peft_.bias == PeftConfig::Bias::kLoraOnly && is_adapted));
    if (!is_saved && !is_bias) continue;
    names.push_back(is_adapted
                        ? absl::StrCat(parameter.module, ".base_layer.bias")
                        : parameter.name());
    weights_->saved.push_back({std::move(parameter), {}});
  }
  // The list is complete, so that its elements do not move any more.
  for (size_t i = 0; i < names.size(); ++i) {
    SavedParameter& saved = weights_->saved[i];
    const bool is_weight = saved.parameter.kind == Kind::kWeight;
    Add({names[i],
         saved.parameter.shape(),
         is_weight ? "out, in" : "out",
         is_weight ? Item::Storage::kAsInFile : Item::Storage::kF32,
         &saved.values,
         {},
         nullptr});
  }
  return absl::OkStatus();
}

absl::StatusOr<LinearId> AdapterTensors::FindTokensModule(
    const TrainableTokens& tokens) {
  std::optional<LinearId> id;
  for (const ModuleName& module : ModuleNames(model_)) {
    if (!absl::EndsWith(module.name, tokens.module)) continue;
    if (module.kind != ModuleName::Kind::kEmbedding &&
        module.kind != ModuleName::Kind::kLmHead) {
      return FieldError(kTokensKey,
                        absl::StrCat("takes ", Quote(module.name),
                                     ", expected embed_tokens or lm_head"));
    }
    id = module.id;
  }
  if (!id.has_value()) {
    return FieldError(kTokensKey, absl::StrCat("names ", Quote(tokens.module),
                                               ", the model has no such "
                                               "module"));
  }
  for (const int64_t index : tokens.indices) {
    if (index < model_.vocab_size) continue;
    return FieldError(
        kTokensKey, absl::StrCat("has ", index, ", the model's vocabulary is ",
                                 model_.vocab_size));
  }
  return *id;
}

// PEFT does not say what the sum of two kinds of change is.
absl::Status AdapterTensors::CheckIsFree(LinearId id) {
  const char* other = nullptr;
  if (IsAdapted(id)) other = "target_modules";
  if (FindId(weights_->saved, id, [](const SavedParameter& s) {
        return s.parameter.linear;
      }) != nullptr) {
    other = "modules_to_save";
  }
  if (FindId(weights_->replaced_rows, id,
             [](const ReplacedRows& r) { return r.id; }) != nullptr) {
    other = "trainable_token_indices itself";
  }
  if (other == nullptr) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(kAdapterConfigFile, " field ", Quote(kTokensKey), " takes ",
                   Quote(NameOf(id)), ", which ", other, " takes too"));
}

absl::Status AdapterTensors::ListTrainableTokens() {
  for (const TrainableTokens& tokens : peft_.trainable_tokens) {
    ASSIGN_OR_RETURN(const LinearId id, FindTokensModule(tokens));
    std::vector<LinearId> ids = {id};
    // A tied lm_head has the embedding's rows.
    if (model_.tie_word_embeddings && id == LinearId::EmbedTokens()) {
      ids.push_back(LinearId::LmHead());
    }
    for (const LinearId other : ids) {
      RETURN_IF_ERROR(CheckIsFree(other));
      ReplacedRows rows;
      rows.id = other;
      rows.tokens.assign(tokens.indices.begin(), tokens.indices.end());
      weights_->replaced_rows.push_back(std::move(rows));
    }
  }
  for (ReplacedRows& rows : weights_->replaced_rows) {
    const bool is_tied = model_.tie_word_embeddings &&
                         rows.id == LinearId::LmHead() &&
                         weights_->replaced_rows.size() == 2;
    if (is_tied) continue;  // Read copies the view of the embedding's.
    Add({absl::StrCat(NameOf(rows.id), ".token_adapter.trainable_tokens_delta"),
         {static_cast<int64_t>(rows.tokens.size()), model_.hidden_size},
         "tokens, hidden",
         Item::Storage::kAsInFile,
         &rows.rows,
         {},
         nullptr});
  }
  return absl::OkStatus();
}

absl::Status AdapterTensors::Assign(const SafetensorsFile& file) {
  absl::flat_hash_map<absl::string_view, Item*> by_name;
  for (Item& item : items_) by_name[item.name] = &item;
  for (const SafetensorsEntry& entry : file.entries()) {
    absl::string_view name = entry.name;
    if (!absl::ConsumePrefix(&name, kPrefix)) {
      return TensorError(entry,
                         absl::StrCat("does not begin with ", Quote(kPrefix)));
    }
    const bool ignored = std::any_of(
        peft_.ignored_tensors.begin(), peft_.ignored_tensors.end(),
        [&](const std::string& s) { return absl::StrContains(name, s); });
    if (ignored) continue;
    const auto it = by_name.find(name);
    if (it == by_name.end()) return UnknownTensor(entry, name);
    it->second->entry = &entry;
  }
  for (const Item& item : items_) {
    if (item.entry == nullptr && item.to != nullptr) {
      return MissingTensor(item.name);
    }
  }
  return absl::OkStatus();
}

absl::Status AdapterTensors::ReadItem(const Item& item,
                                      std::optional<DType> dtype,
                                      const BaseWeights* base) {
  const SafetensorsEntry& entry = *item.entry;
  if (entry.shape != item.shape) {
    return TensorError(
        entry, absl::StrCat("is [", absl::StrJoin(entry.shape, ", "),
                            "], expected [", absl::StrJoin(item.shape, ", "),
                            "] (", item.meaning, ")"));
  }
  Buffer aligned;
  absl::StatusOr<ConstTensor> view = FloatTensor(entry, &aligned);
  if (!view.ok()) return Annotate(view.status(), kAdapterModelFile);
  std::string bad = FirstNonFinite(*view);
  if (!bad.empty()) {
    return TensorError(entry, absl::StrCat("is NaN or infinite at ", bad));
  }
  if (item.to == nullptr) {
    if (base == nullptr) {
      weights_->warnings.push_back(
          absl::StrCat(Escape(entry.name), " is not compared with the base"));
    } else if (!base->IsEqual(item.copy_of, *view)) {
      return TensorError(entry, "differs from the base's own weight");
    }
    return absl::OkStatus();
  }
  DType stored = view->dtype;
  if (item.storage == Item::Storage::kF32) stored = DType::kF32;
  if (item.storage == Item::Storage::kAdapter) stored = dtype.value_or(stored);
  Buffer buffer(view->rows * view->cols * SizeBytes(stored));
  CopyAs(*view, stored, buffer.data());
  const ConstTensor result(buffer.data(), stored, view->rows, view->cols,
                           view->cols);
  // A number that fits the file's dtype may be too large for ours.
  if (stored != view->dtype) bad = FirstNonFinite(result);
  if (!bad.empty()) {
    return TensorError(
        entry, absl::StrCat("does not fit ", Name(stored), " at ", bad));
  }
  *item.to = result;
  weights_->size_bytes += buffer.size_bytes();
  weights_->num_parameters += view->rows * view->cols;
  weights_->storage.push_back(std::move(buffer));
  return absl::OkStatus();
}

// With ensure_weight_tying the file has the values of both ends.
absl::Status AdapterTensors::CheckTied() const {
  if (!peft_.ensure_weight_tying || !model_.tie_word_embeddings) {
    return absl::OkStatus();
  }
  const auto differ = [](absl::string_view a, absl::string_view b) {
    return FieldError(
        "ensure_weight_tying",
        absl::StrCat("is true, but ", a, " and ", b, " differ in the file"));
  };
  const auto id_of = [](const LoraModule& m) { return m.id; };
  const auto* embed = FindId(weights_->modules, LinearId::EmbedTokens(), id_of);
  const auto* lm_head = FindId(weights_->modules, LinearId::LmHead(), id_of);
  if (embed != nullptr && (!AreEqual(lm_head->a, embed->b, true) ||
                           !AreEqual(lm_head->b, embed->a, true))) {
    return differ("lm_head.lora_*", "model.embed_tokens.lora_embedding_*");
  }
  const auto linear_of = [](const SavedParameter& s) {
    return s.parameter.kind == BaseParameter::Kind::kWeight ? s.parameter.linear
                                                            : LinearId();
  };
  const auto* table =
      FindId(weights_->saved, LinearId::EmbedTokens(), linear_of);
  const auto* head = FindId(weights_->saved, LinearId::LmHead(), linear_of);
  if (table != nullptr && !AreEqual(table->values, head->values, false)) {
    return differ("lm_head.weight", "model.embed_tokens.weight");
  }
  return absl::OkStatus();
}

absl::Status AdapterTensors::Read(const SafetensorsFile& file,
                                  std::optional<DType> dtype,
                                  const BaseWeights* base) {
  RETURN_IF_ERROR(Assign(file));
  for (const Item& item : items_) {
    if (item.entry != nullptr) RETURN_IF_ERROR(ReadItem(item, dtype, base));
  }
  for (ReplacedRows& rows : weights_->replaced_rows) {
    if (rows.rows.data == nullptr) rows.rows = weights_->replaced_rows[0].rows;
  }
  return CheckTied();
}

}  // namespace lorikeet
