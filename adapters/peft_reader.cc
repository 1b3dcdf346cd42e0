#include "adapters/peft_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "adapters/module_pattern.h"
#include "adapters/peft_config.h"
#include "adapters/target_modules.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"
#include "model/safetensors.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";
constexpr absl::string_view kASuffix = ".lora_A.weight";
constexpr absl::string_view kBSuffix = ".lora_B.weight";

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

// The tensors of one module, found in the file.
struct Pair {
  const SafetensorsEntry* a = nullptr;
  const SafetensorsEntry* b = nullptr;
};

absl::Status TensorError(const SafetensorsEntry& entry,
                         absl::string_view rest) {
  return absl::InvalidArgumentError(absl::StrCat(kAdapterModelFile, ": tensor ",
                                                 Quote(entry.name), " ", rest));
}

// Assigns every tensor of the file to a target module.
absl::StatusOr<std::vector<Pair>> AssignTensors(
    const SafetensorsFile& file, const std::vector<TargetModule>& modules,
    const PeftConfig& peft) {
  absl::flat_hash_map<absl::string_view, size_t> by_name;
  for (size_t i = 0; i < modules.size(); ++i) by_name[modules[i].name] = i;
  std::vector<Pair> pairs(modules.size());
  for (const SafetensorsEntry& entry : file.entries()) {
    absl::string_view name = entry.name;
    if (!absl::ConsumePrefix(&name, kPrefix)) {
      return TensorError(entry,
                         absl::StrCat("does not begin with ", Quote(kPrefix)));
    }
    const bool ignored = std::any_of(
        peft.ignored_tensors.begin(), peft.ignored_tensors.end(),
        [&](const std::string& s) { return absl::StrContains(name, s); });
    if (ignored) continue;
    const bool is_a = absl::ConsumeSuffix(&name, kASuffix);
    if (!is_a && !absl::ConsumeSuffix(&name, kBSuffix)) {
      return TensorError(entry, "has no use in a plain LoRA adapter");
    }
    const auto it = by_name.find(name);
    if (it == by_name.end()) {
      return TensorError(
          entry, absl::StrCat("belongs to ", Quote(name),
                              ", which the configuration does not adapt"));
    }
    (is_a ? pairs[it->second].a : pairs[it->second].b) = &entry;
  }
  for (size_t i = 0; i < modules.size(); ++i) {
    for (const auto& [entry, suffix] :
         {std::pair(pairs[i].a, kASuffix), std::pair(pairs[i].b, kBSuffix)}) {
      if (entry != nullptr) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(kAdapterModelFile, ": tensor ",
                       Quote(absl::StrCat(kPrefix, modules[i].name, suffix)),
                       " is missing"));
    }
  }
  return pairs;
}

// Fills rank and scaling of each module.
absl::Status FillRanks(const PeftConfig& peft, const PeftLimits& limits,
                       std::vector<LoraModule>* modules) {
  ASSIGN_OR_RETURN(const PatternTable ranks,
                   PatternTable::Compile("rank_pattern", peft.rank_pattern));
  ASSIGN_OR_RETURN(const PatternTable alphas,
                   PatternTable::Compile("alpha_pattern", peft.alpha_pattern));
  for (LoraModule& module : *modules) {
    ASSIGN_OR_RETURN(const std::optional<double> rank, ranks.Find(module.name));
    ASSIGN_OR_RETURN(const std::optional<double> alpha,
                     alphas.Find(module.name));
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

// Reads one matrix [rows, cols], checks it and keeps it in `weights`.
absl::StatusOr<ConstTensor> ReadMatrix(const SafetensorsEntry& entry,
                                       int64_t rows, int64_t cols,
                                       absl::string_view meaning,
                                       std::optional<DType> dtype,
                                       AdapterWeights* weights) {
  if (entry.shape != std::vector<int64_t>{rows, cols}) {
    return TensorError(
        entry,
        absl::StrCat("is [", absl::StrJoin(entry.shape, ", "), "], expected [",
                     rows, ", ", cols, "] (", meaning, ")"));
  }
  Buffer aligned;
  absl::StatusOr<ConstTensor> view = FloatTensor(entry, &aligned);
  if (!view.ok()) return Annotate(view.status(), kAdapterModelFile);
  std::string bad = FirstNonFinite(*view);
  if (!bad.empty()) {
    return TensorError(entry, absl::StrCat("is NaN or infinite at ", bad));
  }
  const DType stored = dtype.value_or(view->dtype);
  Buffer buffer(rows * cols * SizeBytes(stored));
  CopyAs(*view, stored, buffer.data());
  const ConstTensor result(buffer.data(), stored, rows, cols, cols);
  // A number that fits the file's dtype may be too large for ours.
  if (stored != view->dtype) bad = FirstNonFinite(result);
  if (!bad.empty()) {
    return TensorError(
        entry, absl::StrCat("does not fit ", Name(stored), " at ", bad));
  }
  weights->size_bytes += buffer.size_bytes();
  weights->num_parameters += rows * cols;
  weights->storage.push_back(std::move(buffer));
  return result;
}

absl::StatusOr<std::shared_ptr<const AdapterWeights>> Read(
    FileSystem& fs, const std::string& dir, const ModelConfig& config,
    const PeftLimits& limits, std::optional<DType> dtype) {
  ASSIGN_OR_RETURN(const std::string text, ReadConfigText(fs, dir, limits));
  ASSIGN_OR_RETURN(const PeftConfig peft, PeftConfig::Parse(text));
  ASSIGN_OR_RETURN(const TargetModules targets,
                   FindTargetModules(peft, config));

  auto weights = std::make_shared<AdapterWeights>();
  weights->warnings = peft.warnings;
  weights->warnings.insert(weights->warnings.end(), targets.warnings.begin(),
                           targets.warnings.end());
  weights->alpha = peft.lora_alpha;
  weights->use_rslora = peft.use_rslora;
  for (const TargetModule& target : targets.modules) {
    LoraModule module;
    module.id = target.id;
    module.name = target.name;
    weights->modules.push_back(std::move(module));
  }
  RETURN_IF_ERROR(FillRanks(peft, limits, &weights->modules));

  RETURN_IF_ERROR(CheckModelFile(fs, dir, limits));
  const std::string path = JoinPath(dir, kAdapterModelFile);
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file =
      SafetensorsFile::Open(fs, path, kAdapterModelFile);
  if (!file.ok()) return WithoutPath(file.status(), kAdapterModelFile, path);
  ASSIGN_OR_RETURN(const std::vector<Pair> pairs,
                   AssignTensors(**file, targets.modules, peft));
  for (size_t i = 0; i < pairs.size(); ++i) {
    LoraModule& module = weights->modules[i];
    const TargetModule& target = targets.modules[i];
    ASSIGN_OR_RETURN(module.a,
                     ReadMatrix(*pairs[i].a, module.rank, target.in_dim,
                                "rank, in", dtype, weights.get()));
    ASSIGN_OR_RETURN(module.b,
                     ReadMatrix(*pairs[i].b, target.out_dim, module.rank,
                                "out, rank", dtype, weights.get()));
    weights->max_rank = std::max(weights->max_rank, module.rank);
  }
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
    const PeftLimits& limits, std::optional<DType> dtype) {
  absl::StatusOr<std::shared_ptr<const AdapterWeights>> weights =
      Read(fs, dir, config, limits, dtype);
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
