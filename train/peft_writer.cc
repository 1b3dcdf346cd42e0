#include "train/peft_writer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "adapters/peft_reader.h"
#include "base/json.h"
#include "base/status.h"
#include "model/safetensors_writer.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxCopiedBytes = uint64_t{256} << 20;
// What a model's directory has beside config.json and weights.
constexpr absl::string_view kCopiedFiles[] = {
    "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json"};

// All tensors, ascending by name, as others write them.
absl::Status WriteTensors(FileSystem& fs, const std::string& path,
                          const ParameterSet& parameters) {
  const std::vector<ParameterShape>& shapes = parameters.shapes();
  std::vector<size_t> order(shapes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](size_t i) { return shapes[i].name; });
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const size_t i : order) {
    tensors.push_back({shapes[i].name, "F32", shapes[i].shape,
                       static_cast<uint64_t>(shapes[i].size()) * 4});
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                   SafetensorsWriter::Create(fs, path, tensors));
  for (const size_t i : order) {
    const Tensor value = parameters.host_value(i);
    RETURN_IF_ERROR(writer->Append(
        {static_cast<const char*>(value.data),
         static_cast<size_t>(value.rows * value.cols) * sizeof(float)}));
  }
  return writer->Finish();
}

// The names that adapter_config.json gives for "all-linear", as PEFT does.
std::vector<std::string> TargetNames(const TrainingOptions& options) {
  std::vector<std::string> names = options.target_modules;
  if (names.size() == 1 && absl::AsciiStrToLower(names[0]) == "all-linear") {
    names.assign(kProjectionNames.begin(), kProjectionNames.end());
  }
  std::ranges::sort(names);
  return names;
}

Json PeftJson(const TrainingOptions& options, const std::string& base) {
  Json names = Json::Array();
  for (const std::string& name : TargetNames(options)) names.Append(name);
  Json json = Json::Object();
  json.Set("base_model_name_or_path", base);
  json.Set("bias", "none");
  json.Set("fan_in_fan_out", false);
  json.Set("inference_mode", true);
  json.Set("init_lora_weights", "gaussian");
  // PEFT's own type is an integer, and most are.
  const double whole = std::floor(options.alpha);
  json.Set("lora_alpha", whole == options.alpha
                             ? Json(static_cast<int64_t>(whole))
                             : Json(options.alpha));
  json.Set("lora_dropout", options.dropout);
  json.Set("modules_to_save", Json());
  json.Set("peft_type", "LORA");
  json.Set("r", options.rank);
  json.Set("target_modules", std::move(names));
  json.Set("task_type", "CAUSAL_LM");
  json.Set("use_dora", options.use_dora);
  json.Set("use_rslora", options.use_rslora);
  return json;
}

}  // namespace

absl::Status WritePeftAdapter(FileSystem& fs, const std::string& dir,
                              const TrainingOptions& options,
                              const TrainModel& model) {
  RETURN_IF_ERROR(
      WriteTensors(fs, JoinPath(dir, kAdapterModelFile), model.parameters()));
  return WriteFileDurably(fs, JoinPath(dir, kAdapterConfigFile),
                          PeftJson(options, model.base().dir()).Dump(2) + "\n");
}

absl::Status WriteTrainedModel(FileSystem& fs, const std::string& dir,
                               const TrainModel& model) {
  const std::string& base = model.base().dir();
  RETURN_IF_ERROR(
      WriteTensors(fs, JoinPath(dir, "model.safetensors"), model.parameters()));
  for (const absl::string_view name : kCopiedFiles) {
    const std::string path = JoinPath(base, name);
    if (!fs.FileExists(path)) continue;
    ASSIGN_OR_RETURN(const std::string bytes,
                     fs.ReadFile(path, kMaxCopiedBytes));
    RETURN_IF_ERROR(WriteFileDurably(fs, JoinPath(dir, name), bytes));
  }
  ASSIGN_OR_RETURN(const std::string text,
                   fs.ReadFile(JoinPath(base, "config.json"), kMaxCopiedBytes));
  ASSIGN_OR_RETURN(Json config, Json::Parse(text));
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.Find(key) != nullptr) config.Set(key, "float32");
  }
  return WriteFileDurably(fs, JoinPath(dir, "config.json"),
                          config.Dump(2) + "\n");
}

}  // namespace lorikeet
