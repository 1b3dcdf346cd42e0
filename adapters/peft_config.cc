// The order of checks is: the method (peft_type), features we do not have,
// then values. So an adapter that needs BD-LoRA is told so, and not that a
// tensor is unknown.

#include "adapters/peft_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr char kFile[] = "adapter_config.json";
constexpr size_t kMaxListEntries = 100'000;

bool IsEmpty(const Json& value) {
  return (value.is_string() && value.AsString().empty()) ||
         (value.is_array() && value.items().empty()) ||
         (value.is_object() && value.members().empty());
}

// null, false, 0, "", [] and {}: what a key says that is not in use.
bool IsOff(const Json& value) {
  if (value.is_null() || IsEmpty(value)) return true;
  if (value.is_bool()) return !value.AsBool();
  return value.is_number() && value.AsDouble() == 0;
}

class Parser {
 public:
  explicit Parser(const Json& object)
      : object_(object), reader_(object, kFile) {}

  absl::StatusOr<PeftConfig> Run() {
    RETURN_IF_ERROR(CheckMethod());
    RETURN_IF_ERROR(RefuseFeatures());
    RETURN_IF_ERROR(CheckInit());
    RETURN_IF_ERROR(ReadNumbers());
    RETURN_IF_ERROR(ReadModules());
    RETURN_IF_ERROR(ReadLayers());
    RETURN_IF_ERROR(ReadPatterns());
    RETURN_IF_ERROR(ReadVariants());
    RETURN_IF_ERROR(ReadSaved());
    RETURN_IF_ERROR(ReadTrainableTokens());
    RETURN_IF_ERROR(ReadInvocation());
    RETURN_IF_ERROR(ReadNeutral());
    RETURN_IF_ERROR(RefuseUnknown());
    return std::move(config_);
  }

 private:
  absl::Status Unsupported(absl::string_view key, absl::string_view rest) {
    return absl::UnimplementedError(
        absl::StrCat(kFile, " field ", Quote(key), " ", rest));
  }

  absl::Status CheckMethod() {
    RETURN_IF_ERROR(reader_.Require("peft_type"));
    ASSIGN_OR_RETURN(const std::string type, reader_.String("peft_type", ""));
    if (type == "LORA") return absl::OkStatus();
    return Unsupported("peft_type",
                       absl::StrCat("is ", Quote(type), ", expected \"LORA\""));
  }

  absl::Status RefuseFeatures() {
    ASSIGN_OR_RETURN(const bool qalora, reader_.Bool("use_qalora", false));
    if (qalora) {
      return Unsupported("use_qalora", "is true, but QA-LoRA is not supported");
    }
    // Lists and tables that are in use unless they are empty.
    for (const char* key :
         {"layer_replication", "target_parameters", "megatron_config"}) {
      const Json* value = reader_.Get(key);
      if (value != nullptr && !IsOff(*value)) {
        return Unsupported(key, "is set, but is not supported");
      }
    }
    // PEFT counts an empty object as set.
    for (const char* key : {"use_bdlora", "kasa_config", "arrow_config"}) {
      const Json* value = reader_.Get(key);
      if (value != nullptr && !(value->is_bool() && !value->AsBool())) {
        return Unsupported(key, "is set, but is not supported");
      }
    }
    return absl::OkStatus();
  }

  // Some initializations change the base weights: there W + sBA is wrong.
  absl::Status CheckInit() {
    const Json* value = reader_.Get("init_lora_weights");
    if (value == nullptr || value->is_bool()) return absl::OkStatus();
    if (!value->is_string()) {
      return reader_.Error("init_lora_weights",
                           absl::StrCat("is ", value->TypeName(),
                                        ", expected true, false or a name"));
    }
    const std::string& name = value->AsString();
    const std::string lower = absl::AsciiStrToLower(name);
    for (const char* neutral : {"gaussian", "orthogonal", "eva", "mica"}) {
      if (lower == neutral) return absl::OkStatus();
    }
    return Unsupported(
        "init_lora_weights",
        absl::StrCat("is ", Quote(name),
                     ", which changes the base weights; convert the adapter "
                     "with path_initial_model_for_weight_conversion"));
  }

  // PEFT fails on null here, where JsonReader would take the default.
  absl::Status RefuseNull(absl::string_view key) {
    const Json* value = object_.Find(key);
    if (value == nullptr || !value->is_null()) return absl::OkStatus();
    return reader_.Error(key, "is null");
  }

  absl::Status ReadNumbers() {
    RETURN_IF_ERROR(RefuseNull("r"));
    RETURN_IF_ERROR(RefuseNull("lora_alpha"));
    ASSIGN_OR_RETURN(config_.r, reader_.Int("r", config_.r, 1, kMaxRank));
    ASSIGN_OR_RETURN(
        config_.lora_alpha,
        reader_.Double("lora_alpha", config_.lora_alpha, kMinAlpha, kMaxAlpha));
    ASSIGN_OR_RETURN(config_.use_rslora, reader_.Bool("use_rslora", false));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> Strings(absl::string_view key,
                                                   const Json& list) {
    if (list.items().size() > kMaxListEntries) {
      return reader_.Error(
          key, absl::StrCat("has ", list.items().size(),
                            " entries, the limit is ", kMaxListEntries));
    }
    std::vector<std::string> result;
    for (const Json& item : list.items()) {
      if (!item.is_string() || item.AsString().empty()) {
        return reader_.Error(
            key, absl::StrCat("has an entry ", Escape(item.Dump(), 40),
                              ", expected a name"));
      }
      result.push_back(item.AsString());
    }
    return result;
  }

  absl::StatusOr<std::optional<ModuleChoice>> Choice(absl::string_view key) {
    const Json* value = reader_.Get(key);
    if (value == nullptr) return std::optional<ModuleChoice>();
    ModuleChoice choice;
    if (value->is_string()) {
      choice.regex = value->AsString();
    } else if (value->is_array()) {
      ASSIGN_OR_RETURN(choice.names, Strings(key, *value));
    } else {
      return reader_.Error(key, absl::StrCat("is ", value->TypeName(),
                                             ", expected a string or a list"));
    }
    return std::optional<ModuleChoice>(std::move(choice));
  }

  absl::Status ReadModules() {
    ASSIGN_OR_RETURN(config_.target_modules, Choice("target_modules"));
    ASSIGN_OR_RETURN(config_.exclude_modules, Choice("exclude_modules"));
    const auto& exclude = config_.exclude_modules;
    if (exclude.has_value() && exclude->names.empty() &&
        (!exclude->regex.has_value() || exclude->regex->empty())) {
      config_.exclude_modules.reset();
    }
    return absl::OkStatus();
  }

  absl::Status ReadLayers() {
    constexpr char kLayers[] = "layers_to_transform";
    const Json* layers = reader_.Get(kLayers);
    std::vector<Json> items;
    if (layers != nullptr && layers->is_array()) {
      items = layers->items();
    } else if (layers != nullptr) {
      items.push_back(*layers);
    }
    if (items.size() > kMaxListEntries) {
      return reader_.Error(kLayers, "has too many entries");
    }
    for (const Json& item : items) {
      if (!item.is_int()) {
        return reader_.Error(kLayers,
                             absl::StrCat("has ", Escape(item.Dump(), 40),
                                          ", expected integers"));
      }
      config_.layers_to_transform.push_back(item.AsInt());
    }
    const Json* pattern = reader_.Get("layers_pattern");
    if (pattern != nullptr && !IsEmpty(*pattern)) {
      if (pattern->is_string()) {
        config_.layers_pattern.push_back(pattern->AsString());
      } else if (pattern->is_array()) {
        ASSIGN_OR_RETURN(config_.layers_pattern,
                         Strings("layers_pattern", *pattern));
      } else {
        return reader_.Error("layers_pattern",
                             absl::StrCat("is ", pattern->TypeName(),
                                          ", expected a string or a list"));
      }
    }
    const bool is_regex = config_.target_modules.has_value() &&
                          config_.target_modules->regex.has_value();
    if (config_.layers_to_transform.empty()) {
      if (config_.layers_pattern.empty()) return absl::OkStatus();
      return reader_.Error("layers_pattern",
                           "is set without \"layers_to_transform\"");
    }
    if (is_regex) {
      return reader_.Error(
          kLayers, "cannot be used when \"target_modules\" is a string");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<PatternTable::Entries> Table(absl::string_view key,
                                              bool integers) {
    PatternTable::Entries entries;
    RETURN_IF_ERROR(RefuseNull(key));
    const Json* table = reader_.Get(key);
    if (table == nullptr) return entries;
    if (!table->is_object()) {
      return reader_.Error(
          key, absl::StrCat("is ", table->TypeName(), ", expected an object"));
    }
    for (const Json::Member& member : table->members()) {
      const Json& value = member.second;
      const double number = value.is_number() ? value.AsDouble() : 0;
      const bool ok = integers
                          ? value.is_int() && number >= 1 && number <= kMaxRank
                          : number >= kMinAlpha && number <= kMaxAlpha;
      if (!ok) {
        return reader_.Error(
            key,
            absl::StrCat(
                "gives ", Quote(member.first), " ", Escape(value.Dump(), 40),
                ", expected ", integers ? "an integer" : "a number", " in [",
                integers ? 1 : kMinAlpha, ", ",
                integers ? static_cast<double>(kMaxRank) : kMaxAlpha, "]"));
      }
      entries.emplace_back(member.first, number);
    }
    return entries;
  }

  absl::Status ReadPatterns() {
    ASSIGN_OR_RETURN(config_.rank_pattern, Table("rank_pattern", true));
    ASSIGN_OR_RETURN(config_.alpha_pattern, Table("alpha_pattern", false));
    return absl::OkStatus();
  }

  absl::Status ReadVariants() {
    ASSIGN_OR_RETURN(config_.use_dora, reader_.Bool("use_dora", false));
    ASSIGN_OR_RETURN(config_.lora_bias, reader_.Bool("lora_bias", false));
    ASSIGN_OR_RETURN(config_.ensure_weight_tying,
                     reader_.Bool("ensure_weight_tying", false));
    if (config_.use_dora && config_.lora_bias) {
      return reader_.Error("lora_bias", "cannot be used with \"use_dora\"");
    }
    ASSIGN_OR_RETURN(const std::string bias, reader_.String("bias", "none"));
    if (bias == "all") {
      config_.bias = PeftConfig::Bias::kAll;
    } else if (bias == "lora_only") {
      config_.bias = PeftConfig::Bias::kLoraOnly;
    } else if (bias != "none") {
      return reader_.Error("bias",
                           absl::StrCat("is ", Quote(bias),
                                        ", expected \"none\", \"all\" or "
                                        "\"lora_only\""));
    }
    return absl::OkStatus();
  }

  absl::Status ReadSaved() {
    constexpr char kKey[] = "modules_to_save";
    const Json* value = reader_.Get(kKey);
    if (value == nullptr || IsOff(*value)) return absl::OkStatus();
    if (!value->is_array()) {
      return reader_.Error(kKey, absl::StrCat("is ", value->TypeName(),
                                              ", expected a list of names"));
    }
    ASSIGN_OR_RETURN(config_.modules_to_save, Strings(kKey, *value));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<int64_t>> Tokens(absl::string_view key,
                                              const Json& list) {
    if (!list.is_array()) {
      return reader_.Error(
          key, absl::StrCat("is ", list.TypeName(), ", expected token ids"));
    }
    if (list.items().size() > kMaxListEntries) {
      return reader_.Error(
          key, absl::StrCat("has ", list.items().size(),
                            " entries, the limit is ", kMaxListEntries));
    }
    std::vector<int64_t> tokens;
    for (const Json& item : list.items()) {
      if (!item.is_int() || item.AsInt() < 0) {
        return reader_.Error(key, absl::StrCat("has ", Escape(item.Dump(), 40),
                                               ", expected token ids"));
      }
      tokens.push_back(item.AsInt());
    }
    return tokens;
  }

  absl::Status AddTrainableTokens(const std::string& module, const Json& list) {
    constexpr char kKey[] = "trainable_token_indices";
    ASSIGN_OR_RETURN(std::vector<int64_t> indices, Tokens(kKey, list));
    if (indices.empty()) return reader_.Error(kKey, "is an empty list");
    std::vector<int64_t> sorted = indices;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) {
      return reader_.Error(kKey, absl::StrCat("has ", *twice, " twice"));
    }
    config_.trainable_tokens.push_back({module, std::move(indices)});
    return absl::OkStatus();
  }

  // A list is of the embedding, a table says of which module.
  absl::Status ReadTrainableTokens() {
    const Json* value = reader_.Get("trainable_token_indices");
    if (value == nullptr || (value->is_bool() && !value->AsBool())) {
      return absl::OkStatus();
    }
    if (!value->is_object()) return AddTrainableTokens("embed_tokens", *value);
    for (const Json::Member& member : value->members()) {
      RETURN_IF_ERROR(AddTrainableTokens(member.first, member.second));
    }
    return absl::OkStatus();
  }

  // The adapter of an aLoRA acts on a part of the sequence alone; of what is
  // not a low-rank part of a linear PEFT does not say how it should.
  absl::Status ReadInvocation() {
    constexpr char kKey[] = "alora_invocation_tokens";
    const Json* value = reader_.Get(kKey);
    if (value == nullptr || IsOff(*value)) return absl::OkStatus();
    ASSIGN_OR_RETURN(config_.alora_invocation_tokens, Tokens(kKey, *value));
    const char* other = nullptr;
    if (config_.use_dora) other = "use_dora";
    if (config_.bias != PeftConfig::Bias::kNone) other = "bias";
    if (!config_.modules_to_save.empty()) other = "modules_to_save";
    if (!config_.trainable_tokens.empty()) other = "trainable_token_indices";
    if (other == nullptr) return absl::OkStatus();
    return Unsupported(
        kKey, absl::StrCat("is set, which cannot be used with ", Quote(other)));
  }

  void Warn(absl::string_view key, absl::string_view rest) {
    config_.warnings.push_back(absl::StrCat(key, " ", rest));
  }

  absl::Status ReadNeutral() {
    const Json* fan_in = reader_.Get("fan_in_fan_out");
    if (fan_in != nullptr && !IsOff(*fan_in)) {
      Warn("fan_in_fan_out", "is ignored: it has no meaning for Linear layers");
    }
    for (const auto& [key, tensors] :
         {std::pair("velora_config", ".lora_velora_"),
          std::pair("monteclora_config", ".lora_monteclora_sampler.")}) {
      const Json* value = reader_.Get(key);
      if (value != nullptr && !IsOff(*value)) {
        Warn(key, "is ignored: it matters in training only");
        config_.ignored_tensors.push_back(tensors);
      }
    }
    const Json* task = reader_.Get("task_type");
    if (task != nullptr &&
        !(task->is_string() && task->AsString() == "CAUSAL_LM")) {
      Warn("task_type", absl::StrCat("is ", Escape(task->Dump(), 40),
                                     ", served as CAUSAL_LM"));
    }
    for (const char* key :
         {"loftq_config", "eva_config", "corda_config", "lora_ga_config",
          "lora_dropout", "base_model_name_or_path", "revision",
          "inference_mode", "auto_mapping", "peft_version", "runtime_config",
          "megatron_core", "qalora_group_size"}) {
      reader_.Get(key);
    }
    return absl::OkStatus();
  }

  absl::Status RefuseUnknown() {
    for (const std::string& key : reader_.UnknownKeys()) {
      if (IsOff(*object_.Find(key))) continue;
      return Unsupported(key,
                         "is unknown and set, so its meaning is not known");
    }
    return absl::OkStatus();
  }

  // More than any real file has; the server's own limit is PeftLimits.
  static constexpr int64_t kMaxRank = std::numeric_limits<int32_t>::max();
  static constexpr double kMinAlpha = 1e-6;
  static constexpr double kMaxAlpha = 1e6;

  const Json& object_;
  JsonReader reader_;
  PeftConfig config_;
};

}  // namespace

absl::StatusOr<PeftConfig> PeftConfig::Parse(absl::string_view text) {
  absl::StatusOr<Json> json = Json::Parse(text);
  if (!json.ok()) return Annotate(json.status(), kFile);
  if (!json->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kFile, " is ", json->TypeName(), ", expected an object"));
  }
  return Parser(*json).Run();
}

}  // namespace lorikeet
