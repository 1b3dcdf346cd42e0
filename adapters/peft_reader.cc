#include "adapters/peft_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/adapter_tensors.h"
#include "adapters/module_pattern.h"
#include "adapters/peft_config.h"
#include "adapters/target_modules.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"
#include "model/safetensors.h"

namespace lorikeet {
namespace {

absl::Status MissingFile(absl::string_view name, absl::string_view rest) {
  return absl::NotFoundError(absl::StrCat(name, " is missing", rest));
}

// Messages name the file alone, since the path may be the server's own.
absl::Status WithoutPath(const absl::Status& status, absl::string_view name,
                         const std::string& path) {
  std::string message(status.message());
  const std::string shown = Escape(path, 1000);
  if (const size_t at = message.find(shown); at != std::string::npos) {
    message.replace(at, shown.size(), std::string(name));
  }
  if (!absl::StrContains(message, name)) {
    message = absl::StrCat(name, ": ", message);
  }
  return absl::Status(status.code(), message);
}

absl::StatusOr<std::string> ReadConfigText(FileSystem& fs,
                                           const std::string& dir,
                                           const PeftLimits& limits) {
  const std::string path = JoinPath(dir, kAdapterConfigFile);
  if (!fs.FileExists(path)) return MissingFile(kAdapterConfigFile, "");
  absl::StatusOr<std::string> text = fs.ReadFile(path, limits.max_config_bytes);
  if (!text.ok()) return WithoutPath(text.status(), kAdapterConfigFile, path);
  return text;
}

absl::Status CheckModelFile(FileSystem& fs, const std::string& dir,
                            const PeftLimits& limits) {
  const std::string path = JoinPath(dir, kAdapterModelFile);
  if (!fs.FileExists(path)) {
    const bool pickle = fs.FileExists(JoinPath(dir, "adapter_model.bin"));
    return MissingFile(kAdapterModelFile,
                       pickle ? "; adapter_model.bin is a pickle and is not "
                                "read, save with safe_serialization=True"
                              : "");
  }
  absl::StatusOr<uint64_t> size = fs.FileSize(path);
  if (!size.ok()) return WithoutPath(size.status(), kAdapterModelFile, path);
  if (*size > limits.max_model_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(kAdapterModelFile, " has ", *size, " bytes, the limit is ",
                     limits.max_model_bytes));
  }
  return absl::OkStatus();
}

// Fills rank and scaling of each module.
absl::Status FillRanks(const PeftConfig& peft,
                       const std::vector<TargetModule>& targets,
                       const PeftLimits& limits,
                       std::vector<LoraModule>* modules) {
  ASSIGN_OR_RETURN(const PatternTable ranks,
                   PatternTable::Compile("rank_pattern", peft.rank_pattern));
  ASSIGN_OR_RETURN(const PatternTable alphas,
                   PatternTable::Compile("alpha_pattern", peft.alpha_pattern));
  for (size_t i = 0; i < targets.size(); ++i) {
    LoraModule& module = (*modules)[i];
    const std::string& name = targets[i].pattern_name;
    ASSIGN_OR_RETURN(const std::optional<double> rank, ranks.Find(name));
    ASSIGN_OR_RETURN(const std::optional<double> alpha, alphas.Find(name));
    module.rank = rank.has_value() ? static_cast<int64_t>(*rank) : peft.r;
    if (module.rank > limits.max_rank) {
      return absl::InvalidArgumentError(
          absl::StrCat("adapter_config.json field ",
                       rank.has_value() ? "\"rank_pattern\"" : "\"r\"",
                       ": rank ", module.rank, " of ", module.name,
                       " exceeds max_lora_rank ", limits.max_rank));
    }
    const double r = static_cast<double>(module.rank);
    module.scaling =
        alpha.value_or(peft.lora_alpha) / (peft.use_rslora ? std::sqrt(r) : r);
  }
  return absl::OkStatus();
}

absl::Status CheckInvocation(const PeftConfig& peft,
                             const ModelConfig& config) {
  for (const int64_t token : peft.alora_invocation_tokens) {
    if (token < config.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "adapter_config.json field \"alora_invocation_tokens\" has ", token,
        ", the model's vocabulary is ", config.vocab_size));
  }
  return absl::OkStatus();
}

AdapterFeatures FeaturesOf(const PeftConfig& peft) {
  AdapterFeatures features;
  const auto add = [&](const char* key, bool is_on) {
    if (is_on) features.keys.push_back(key);
  };
  add("use_dora", peft.use_dora);
  add("lora_bias", peft.lora_bias);
  add("bias", peft.bias != PeftConfig::Bias::kNone);
  add("modules_to_save", !peft.modules_to_save.empty());
  add("trainable_token_indices", !peft.trainable_tokens.empty());
  add("alora_invocation_tokens", !peft.alora_invocation_tokens.empty());
  features.invocation_tokens.assign(peft.alora_invocation_tokens.begin(),
                                    peft.alora_invocation_tokens.end());
  return features;
}

absl::StatusOr<std::shared_ptr<const AdapterWeights>> Read(
    FileSystem& fs, const std::string& dir, const ModelConfig& config,
    const PeftLimits& limits, std::optional<DType> dtype,
    const BaseWeights* base) {
  ASSIGN_OR_RETURN(const std::string text, ReadConfigText(fs, dir, limits));
  ASSIGN_OR_RETURN(const PeftConfig peft, PeftConfig::Parse(text));
  RETURN_IF_ERROR(CheckInvocation(peft, config));
  ASSIGN_OR_RETURN(const TargetModules targets,
                   FindTargetModules(peft, config));

  auto weights = std::make_shared<AdapterWeights>();
  weights->warnings = peft.warnings;
  weights->warnings.insert(weights->warnings.end(), targets.warnings.begin(),
                           targets.warnings.end());
  weights->alpha = peft.lora_alpha;
  weights->use_rslora = peft.use_rslora;
  weights->features = FeaturesOf(peft);
  for (const TargetModule& target : targets.modules) {
    LoraModule module;
    module.id = target.id;
    module.name = target.name;
    weights->modules.push_back(std::move(module));
  }
  RETURN_IF_ERROR(FillRanks(peft, targets.modules, limits, &weights->modules));
  const bool packs_int8 = dtype == DType::kI8;
  if (packs_int8) dtype = std::nullopt;
  for (LoraModule& module : weights->modules) {
    module.packs_int8 = packs_int8;
    weights->max_rank = std::max(weights->max_rank, module.rank);
  }
  ASSIGN_OR_RETURN(AdapterTensors tensors,
                   AdapterTensors::List(peft, config, weights.get()));

  RETURN_IF_ERROR(CheckModelFile(fs, dir, limits));
  const std::string path = JoinPath(dir, kAdapterModelFile);
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file =
      SafetensorsFile::Open(fs, path, kAdapterModelFile);
  if (!file.ok()) return WithoutPath(file.status(), kAdapterModelFile, path);
  RETURN_IF_ERROR(tensors.Read(**file, dtype, base));
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> bytes, fs.Map(path));
  weights->digest = DigestOfAdapterFiles(text, bytes->bytes());
  return std::shared_ptr<const AdapterWeights>(std::move(weights));
}

absl::Status WithReadReason(const absl::Status& status) {
  return WithDefaultReason(status,
                           status.code() == absl::StatusCode::kUnimplemented
                               ? "ADAPTER_UNSUPPORTED"
                               : "ADAPTER_INVALID");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const AdapterWeights>> ReadPeftAdapter(
    FileSystem& fs, const std::string& dir, const ModelConfig& config,
    const PeftLimits& limits, std::optional<DType> dtype,
    const BaseWeights* base) {
  absl::StatusOr<std::shared_ptr<const AdapterWeights>> weights =
      Read(fs, dir, config, limits, dtype, base);
  if (!weights.ok()) return WithReadReason(weights.status());
  return weights;
}

Digest DigestOfAdapterFiles(absl::string_view config_text,
                            absl::string_view model_bytes) {
  const auto line = [](absl::string_view name, absl::string_view content) {
    return absl::StrCat(name, " ", content.size(), " ",
                        DigestOf(content).ToHex(), "\n");
  };
  return DigestOf(absl::StrCat(line(kAdapterConfigFile, config_text),
                               line(kAdapterModelFile, model_bytes)));
}

absl::StatusOr<Digest> DigestOfAdapter(FileSystem& fs, const std::string& dir,
                                       const PeftLimits& limits) {
  absl::StatusOr<std::string> text = ReadConfigText(fs, dir, limits);
  if (!text.ok()) return WithReadReason(text.status());
  absl::Status status = CheckModelFile(fs, dir, limits);
  if (!status.ok()) return WithReadReason(status);
  absl::StatusOr<std::unique_ptr<MappedFile>> bytes =
      fs.Map(JoinPath(dir, kAdapterModelFile));
  if (!bytes.ok()) return WithReadReason(bytes.status());
  return DigestOfAdapterFiles(*text, (*bytes)->bytes());
}

}  // namespace lorikeet
