#include "train/checkpoint_store.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/text.h"
#include "model/safetensors.h"
#include "model/safetensors_writer.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kPrefix = "step-";
constexpr absl::string_view kPartial = "partial";
constexpr absl::string_view kStateFile = "state.json";
constexpr absl::string_view kTensorFile = "state.safetensors";
constexpr uint64_t kMaxStateBytes = uint64_t{1} << 30;
constexpr size_t kKept = 2;

absl::string_view BytesOf(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(float)};
}

struct Part {
  const char* name;
  std::span<float> values;
};

std::vector<Part> PartsOf(const ParameterSet& parameters) {
  return {{"values", parameters.host_values()},
          {"first_moments", parameters.host_first_moments()},
          {"second_moments", parameters.host_second_moments()}};
}

}  // namespace

std::string CheckpointStore::PathOf(int64_t step) const {
  return JoinPath(dir_, absl::StrCat(kPrefix, step));
}

absl::StatusOr<std::vector<int64_t>> CheckpointStore::Steps() {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(dir_));
  std::vector<int64_t> steps;
  for (absl::string_view name : names) {
    int64_t step = 0;
    if (!absl::ConsumePrefix(&name, kPrefix)) continue;
    if (absl::SimpleAtoi(name, &step) && step >= 0) steps.push_back(step);
  }
  std::ranges::sort(steps);
  return steps;
}

absl::StatusOr<std::optional<int64_t>> CheckpointStore::Latest() {
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, Steps());
  if (steps.empty()) return std::optional<int64_t>();
  return std::optional<int64_t>(steps.back());
}

absl::Status CheckpointStore::Write(const std::string& path, const Json& state,
                                    const ParameterSet& parameters) {
  RETURN_IF_ERROR(fs_.CreateDirectories(path));
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const Part& part : PartsOf(parameters)) {
    const absl::string_view bytes = BytesOf(part.values);
    tensors.push_back({part.name, "F32", {parameters.size()}, bytes.size()});
  }
  ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::Create(fs_, JoinPath(path, kTensorFile), tensors));
  for (const Part& part : PartsOf(parameters)) {
    RETURN_IF_ERROR(writer->Append(BytesOf(part.values)));
  }
  RETURN_IF_ERROR(writer->Finish());
  return WriteFileDurably(fs_, JoinPath(path, kStateFile), state.Dump());
}

absl::Status CheckpointStore::Save(int64_t step, const Json& state,
                                   const ParameterSet& parameters) {
  const std::string partial = JoinPath(dir_, kPartial);
  RETURN_IF_ERROR(fs_.RemoveTree(partial));
  absl::Status status = Write(partial, state, parameters);
  if (status.ok()) status = fs_.Rename(partial, PathOf(step));
  if (status.ok()) status = fs_.SyncDirectory(dir_);
  if (!status.ok()) {
    fs_.RemoveTree(partial).IgnoreError();
    return Annotate(status, absl::StrCat("checkpoint of step ", step));
  }
  RemoveOld();
  return absl::OkStatus();
}

// What cannot be removed is in nobody's way.
void CheckpointStore::RemoveOld() {
  const absl::StatusOr<std::vector<int64_t>> steps = Steps();
  if (!steps.ok()) return;
  for (size_t i = 0; i + kKept < steps->size(); ++i) {
    fs_.RemoveTree(PathOf((*steps)[i])).IgnoreError();
  }
}

absl::StatusOr<Json> CheckpointStore::ReadState(int64_t step) {
  const std::string path = JoinPath(PathOf(step), kStateFile);
  ASSIGN_OR_RETURN(const std::string text, fs_.ReadFile(path, kMaxStateBytes));
  absl::StatusOr<Json> json = Json::Parse(text);
  if (!json.ok()) {
    return absl::DataLossError(
        absl::StrCat(Escape(path, 1000), ": ", json.status().message()));
  }
  return json;
}

absl::Status CheckpointStore::ReadParameters(int64_t step,
                                             ParameterSet& parameters) {
  const std::string path = JoinPath(PathOf(step), kTensorFile);
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(fs_, path, path));
  for (const Part& part : PartsOf(parameters)) {
    const SafetensorsEntry* entry = file->Find(part.name);
    if (entry == nullptr || entry->dtype != "F32" ||
        entry->bytes.size() != BytesOf(part.values).size()) {
      return absl::DataLossError(
          absl::StrCat(Escape(path, 1000), ": tensor ", part.name,
                       " is not of ", parameters.size(), " parameters"));
    }
    std::memcpy(part.values.data(), entry->bytes.data(), entry->bytes.size());
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
