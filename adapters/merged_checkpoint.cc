// Order of work: every check that needs no weight, then file by file of the
// base's checkpoint into OUTPUT.partial, which becomes OUTPUT by a rename.

#include "adapters/merged_checkpoint.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "model/checkpoint.h"
#include "model/safetensors_writer.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxCopiedBytes = 256 << 20;
constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr absl::string_view kLmHead = "lm_head.weight";
constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
// What a model's directory has beside config.json and weights.
constexpr absl::string_view kOtherFiles[] = {
    "generation_config.json", "tokenizer.json",      "tokenizer_config.json",
    "tokenizer.model",        "vocab.json",          "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json"};

const char* FileDType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kI8:
      CHECK(false && "a checkpoint holds no packed int8");
  }
  return "";
}

const char* TorchDType(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    case DType::kI8:
      CHECK(false && "a checkpoint holds no packed int8");
  }
  return "";
}

absl::Status CheckAdapters(const BaseWeights& base,
                           std::span<const MergeAdapter> adapters) {
  for (size_t i = 0; i < adapters.size(); ++i) {
    const AdapterWeights& weights = *adapters[i].weights;
    const auto error = [&](absl::string_view rest) {
      return absl::InvalidArgumentError(
          absl::StrCat("adapter ", i + 1, " of ", adapters.size(), " has ",
                       absl::StrJoin(weights.features.keys, ", "), rest));
    };
    if (!weights.features.invocation_tokens.empty()) {
      return error(": what acts from an invocation on only cannot be merged");
    }
    if (!weights.features.is_plain() &&
        (adapters.size() > 1 || adapters[i].scale != 1)) {
      return error(", which can be merged alone and at scale 1 only");
    }
    for (const LoraModule& module : weights.modules) {
      if (module.b_bias.data == nullptr || !base.bias(module.id).empty()) {
        continue;
      }
      return error(absl::StrCat(", but ", module.name,
                                " of the base has no bias to merge it into"));
    }
  }
  return absl::OkStatus();
}

class CheckpointMerger {
 public:
  CheckpointMerger(FileSystem& fs, const BaseWeights& base, Ops& ops,
                   std::span<const MergeAdapter> adapters,
                   std::optional<DType> dtype, std::string dir)
      : fs_(fs),
        base_(base),
        ops_(ops),
        adapters_(adapters),
        dtype_(dtype),
        dir_(std::move(dir)) {
    for (BaseParameter& p : BaseParameters(base.model().config())) {
      std::string name = p.name();
      parameters_.emplace(std::move(name), std::move(p));
    }
  }

  absl::Status Run() {
    ASSIGN_OR_RETURN(checkpoint_, Checkpoint::Open(fs_, base_.model().dir()));
    is_untied_ = MustUntie();
    RETURN_IF_ERROR(fs_.CreateDirectories(dir_));
    RETURN_IF_ERROR(WriteConfig());
    RETURN_IF_ERROR(CopyOtherFiles());
    // By file, in the order of names.
    std::map<std::string, std::vector<const CheckpointTensor*>> files;
    for (const CheckpointTensor& tensor : checkpoint_->tensors()) {
      files[*tensor.file].push_back(&tensor);
    }
    for (const auto& [file, tensors] : files) {
      RETURN_IF_ERROR(WriteFile(file, tensors));
    }
    if (files.size() > 1 || files.begin()->first != kSingleFile) {
      RETURN_IF_ERROR(WriteIndex());
    }
    return fs_.SyncDirectory(dir_);
  }

 private:
  // One tensor of a file to be written.
  struct Output {
    SafetensorsWriter::Tensor tensor;
    absl::string_view copy;  // bytes as they are; or
    const BaseParameter* parameter = nullptr;
    DType dtype = DType::kF32;  // of `parameter`
  };

  absl::StatusOr<LinearMerge> Merge(LinearId id) const {
    return LinearMerge::Create(base_, ops_, id, adapters_);
  }

  // True if one matrix cannot be both ends any more. Trained tokens have the
  // same rows at both ends; of anything else we do not ask whether it is equal.
  bool MustUntie() const {
    if (!base_.model().config().tie_word_embeddings) return false;
    if (!LinearMerge::Changes(LinearId::EmbedTokens(), adapters_) &&
        !LinearMerge::Changes(LinearId::LmHead(), adapters_)) {
      return false;
    }
    return !std::ranges::all_of(adapters_, [](const MergeAdapter& adapter) {
      const AdapterWeights& w = *adapter.weights;
      return w.replaced_rows.size() != 1 &&
             std::ranges::all_of(
                 w.modules,
                 [](const LoraModule& m) { return m.id.is_of_layer(); }) &&
             std::ranges::all_of(w.saved, [](const SavedParameter& s) {
               return s.parameter.kind != BaseParameter::Kind::kWeight ||
                      s.parameter.linear.is_of_layer();
             });
    });
  }

  absl::Status WriteConfig() {
    ASSIGN_OR_RETURN(const std::string text,
                     fs_.ReadFile(JoinPath(base_.model().dir(), "config.json"),
                                  kMaxConfigBytes));
    ASSIGN_OR_RETURN(Json config, Json::Parse(text));
    if (is_untied_) config.Set("tie_word_embeddings", false);
    if (dtype_.has_value()) {
      for (const char* key : {"dtype", "torch_dtype"}) {
        if (config.Find(key) != nullptr) config.Set(key, TorchDType(*dtype_));
      }
    }
    return WriteFileDurably(fs_, JoinPath(dir_, "config.json"),
                            config.Dump(2) + "\n");
  }

  absl::Status CopyOtherFiles() {
    for (const absl::string_view name : kOtherFiles) {
      const std::string from = JoinPath(base_.model().dir(), name);
      if (!fs_.FileExists(from)) continue;
      ASSIGN_OR_RETURN(const std::string bytes,
                       fs_.ReadFile(from, kMaxCopiedBytes));
      RETURN_IF_ERROR(WriteFileDurably(fs_, JoinPath(dir_, name), bytes));
    }
    return absl::OkStatus();
  }

  // Which value of a vector the adapters bring, null = the base's.
  const SavedParameter* FindSaved(const BaseParameter& parameter) const {
    for (const MergeAdapter& adapter : adapters_) {
      for (const SavedParameter& saved : adapter.weights->saved) {
        if (saved.parameter.kind == parameter.kind &&
            saved.parameter.name() == parameter.name()) {
          return &saved;
        }
      }
    }
    return nullptr;
  }

  const LoraModule* FindBBias(const BaseParameter& parameter) const {
    if (parameter.kind != BaseParameter::Kind::kBias) return nullptr;
    for (const MergeAdapter& adapter : adapters_) {
      for (const LoraModule& module : adapter.weights->modules) {
        if (module.id == parameter.linear && module.b_bias.data != nullptr) {
          return &module;
        }
      }
    }
    return nullptr;
  }

  bool Changes(const BaseParameter& parameter) const {
    if (parameter.kind == BaseParameter::Kind::kWeight) {
      return LinearMerge::Changes(parameter.linear, adapters_);
    }
    return FindSaved(parameter) != nullptr || FindBBias(parameter) != nullptr;
  }

  static Output MakeOutput(const BaseParameter& parameter, DType dtype) {
    const uint64_t bytes = static_cast<uint64_t>(
        parameter.rows * parameter.cols * SizeBytes(dtype));
    return {{parameter.name(), FileDType(dtype), parameter.shape(), bytes},
            {},
            &parameter,
            dtype};
  }

  absl::Status AddOutput(const CheckpointTensor& tensor,
                         std::vector<Output>* outputs) {
    const SafetensorsEntry& entry = *tensor.entry;
    const auto it = parameters_.find(entry.name);
    const bool is_tied = base_.model().config().tie_word_embeddings;
    // Left over; transformers does not read it either.
    if (is_tied && entry.name == kLmHead) return absl::OkStatus();
    if (it != parameters_.end() && Changes(it->second)) {
      ASSIGN_OR_RETURN(const DType stored, FloatDType(entry));
      outputs->push_back(MakeOutput(it->second, dtype_.value_or(stored)));
    } else {
      outputs->push_back(
          {{entry.name, entry.dtype, entry.shape, entry.bytes.size()},
           entry.bytes});
    }
    if (!is_untied_ || entry.name != "model.embed_tokens.weight") {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const DType stored, FloatDType(entry));
    outputs->push_back(
        MakeOutput(parameters_.at(kLmHead), dtype_.value_or(stored)));
    return absl::OkStatus();
  }

  absl::Status WriteFile(const std::string& name,
                         const std::vector<const CheckpointTensor*>& tensors) {
    std::vector<Output> outputs;
    for (const CheckpointTensor* tensor : tensors) {
      RETURN_IF_ERROR(AddOutput(*tensor, &outputs));
    }
    std::vector<SafetensorsWriter::Tensor> list;
    for (const Output& output : outputs) {
      list.push_back(output.tensor);
      weight_map_.Set(output.tensor.name, name);
      total_bytes_ += output.tensor.size_bytes;
    }
    ASSIGN_OR_RETURN(
        const std::unique_ptr<SafetensorsWriter> writer,
        SafetensorsWriter::Create(fs_, JoinPath(dir_, name), list));
    for (const Output& output : outputs) {
      RETURN_IF_ERROR(output.parameter == nullptr
                          ? writer->Append(output.copy)
                          : WriteParameter(output, *writer));
    }
    return writer->Finish();
  }

  absl::Status WriteParameter(const Output& output, SafetensorsWriter& writer) {
    const BaseParameter& p = *output.parameter;
    if (p.kind != BaseParameter::Kind::kWeight) {
      return AppendAs(VectorOf(p), output.dtype, writer);
    }
    ASSIGN_OR_RETURN(const LinearMerge merge, Merge(p.linear));
    constexpr int64_t kRows = 64;
    std::vector<float> rows(static_cast<size_t>(kRows * p.cols));
    for (int64_t row = 0; row < p.rows; row += kRows) {
      const int64_t count = std::min(kRows, p.rows - row);
      merge.Rows(row, Tensor::F32(rows.data(), count, p.cols));
      RETURN_IF_ERROR(
          AppendAs(std::span(rows).first(static_cast<size_t>(count * p.cols)),
                   output.dtype, writer));
    }
    return absl::OkStatus();
  }

  // A norm's weights or a bias.
  std::vector<float> VectorOf(const BaseParameter& parameter) const {
    std::vector<float> values;
    if (const SavedParameter* saved = FindSaved(parameter)) {
      values.assign(saved->values.f32(0),
                    saved->values.f32(0) + saved->values.cols);
    } else {
      values = base_.bias(parameter.linear);
    }
    if (const LoraModule* module = FindBBias(parameter)) {
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] +=
            static_cast<float>(module->scaling) * module->b_bias.f32(0)[i];
      }
    }
    return values;
  }

  static absl::Status AppendAs(std::span<const float> values, DType dtype,
                               SafetensorsWriter& writer) {
    std::string bytes(values.size() * static_cast<size_t>(SizeBytes(dtype)),
                      '\0');
    for (size_t i = 0; i < values.size(); ++i) {
      StoreElement(dtype, bytes.data(), static_cast<int64_t>(i), values[i]);
    }
    return writer.Append(bytes);
  }

  absl::Status WriteIndex() {
    Json metadata = Json::Object();
    metadata.Set("total_size", static_cast<int64_t>(total_bytes_));
    Json index = Json::Object();
    index.Set("metadata", std::move(metadata));
    index.Set("weight_map", weight_map_);
    return WriteFileDurably(fs_, JoinPath(dir_, kIndexFile),
                            index.Dump(2) + "\n");
  }

  FileSystem& fs_;
  const BaseWeights& base_;
  Ops& ops_;
  const std::span<const MergeAdapter> adapters_;
  const std::optional<DType> dtype_;
  const std::string dir_;
  absl::flat_hash_map<std::string, BaseParameter> parameters_;  // by name
  std::unique_ptr<Checkpoint> checkpoint_;
  bool is_untied_ = false;
  Json weight_map_ = Json::Object();
  uint64_t total_bytes_ = 0;
};

}  // namespace

absl::Status WriteMergedCheckpoint(FileSystem& fs, const BaseWeights& base,
                                   Ops& ops,
                                   std::span<const MergeAdapter> adapters,
                                   std::optional<DType> dtype,
                                   const std::string& output) {
  RETURN_IF_ERROR(CheckAdapters(base, adapters));
  if (fs.FileExists(output) || fs.IsDirectory(output)) {
    return absl::AlreadyExistsError(
        absl::StrCat("there is already something at ", Escape(output, 1000)));
  }
  const std::string partial = output + ".partial";
  RETURN_IF_ERROR(fs.RemoveTree(partial));
  absl::Status status =
      CheckpointMerger(fs, base, ops, adapters, dtype, partial).Run();
  if (status.ok()) status = fs.Rename(partial, output);
  if (!status.ok()) fs.RemoveTree(partial).IgnoreError();
  return status;
}

}  // namespace lorikeet
