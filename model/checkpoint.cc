#include "model/checkpoint.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
// 10,000 layers of 14 tensors with long names.
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 10'000;

absl::Status IndexError(absl::string_view rest) {
  return absl::InvalidArgumentError(absl::StrCat(kIndexFile, " ", rest));
}

// A shard lies in the model's directory and nowhere else.
bool IsPlainFileName(absl::string_view name) {
  return absl::EndsWith(name, ".safetensors") && name[0] != '.' &&
         name.find_first_of(absl::string_view("/\\\0", 3)) ==
             absl::string_view::npos;
}

// Shard to the names that the index says it has; ordered, so that messages do
// not depend on hashing.
using WeightMap = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<WeightMap> ParseIndex(absl::string_view text) {
  absl::StatusOr<Json> root = Json::Parse(text);
  if (!root.ok()) return Annotate(root.status(), kIndexFile);
  const Json* map = root->Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    return IndexError("has no object \"weight_map\"");
  }
  WeightMap shards;
  for (const Json::Member& member : map->members()) {
    if (!member.second.is_string() ||
        !IsPlainFileName(member.second.AsString())) {
      return IndexError(absl::StrCat(
          "puts tensor ", Quote(member.first), " into ",
          member.second.is_string() ? Quote(member.second.AsString())
                                    : std::string(member.second.TypeName()),
          ", expected the name of a .safetensors file in the directory"));
    }
    shards[member.second.AsString()].push_back(member.first);
  }
  if (shards.empty() || shards.size() > kMaxShards) {
    return IndexError(absl::StrCat("names ", shards.size(),
                                   " files, expected 1 to ", kMaxShards));
  }
  return shards;
}

// Both directions: what the index lists is there, what is there is listed.
absl::Status CheckShard(const SafetensorsFile& file,
                        std::vector<std::string> listed) {
  for (const std::string& name : listed) {
    if (file.Find(name) == nullptr) {
      return IndexError(absl::StrCat("puts tensor ", Quote(name), " into ",
                                     Quote(file.name()),
                                     ", which does not have it"));
    }
  }
  std::sort(listed.begin(), listed.end());
  for (const SafetensorsEntry& entry : file.entries()) {
    if (!std::binary_search(listed.begin(), listed.end(), entry.name) &&
        !IsIgnoredTensor(entry.name)) {
      return IndexError(absl::StrCat("does not list tensor ", Quote(entry.name),
                                     " of ", Quote(file.name())));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsIgnoredTensor(absl::string_view name) {
  return absl::EndsWith(name, ".rotary_emb.inv_freq");
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    FileSystem& fs, const std::string& dir) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  const std::string single = JoinPath(dir, kSingleFile);
  if (fs.FileExists(single)) {
    ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                     SafetensorsFile::Open(fs, single, kSingleFile));
    checkpoint->files_.push_back(std::move(file));
  } else if (fs.FileExists(JoinPath(dir, kIndexFile))) {
    RETURN_IF_ERROR(checkpoint->OpenShards(fs, dir));
  } else {
    const bool has_pickle =
        fs.FileExists(JoinPath(dir, "pytorch_model.bin")) ||
        fs.FileExists(JoinPath(dir, "pytorch_model.bin.index.json"));
    return absl::NotFoundError(absl::StrCat(
        "there is neither ", kSingleFile, " nor ", kIndexFile, " in ",
        Escape(dir, 1000),
        has_pickle ? "; pytorch_model.bin is not supported, convert it" : ""));
  }
  checkpoint->Index();
  return checkpoint;
}

absl::Status Checkpoint::OpenShards(FileSystem& fs, const std::string& dir) {
  ASSIGN_OR_RETURN(const std::string text,
                   fs.ReadFile(JoinPath(dir, kIndexFile), kMaxIndexBytes));
  ASSIGN_OR_RETURN(WeightMap shards, ParseIndex(text));
  for (auto& [name, listed] : shards) {
    ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                     SafetensorsFile::Open(fs, JoinPath(dir, name), name));
    RETURN_IF_ERROR(CheckShard(*file, std::move(listed)));
    files_.push_back(std::move(file));
  }
  return absl::OkStatus();
}

void Checkpoint::Index() {
  for (const auto& file : files_) {
    for (const SafetensorsEntry& entry : file->entries()) {
      tensors_.push_back({&entry, &file->name()});
    }
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const CheckpointTensor& a, const CheckpointTensor& b) {
              return a.entry->name < b.entry->name;
            });
  for (size_t i = 0; i < tensors_.size(); ++i) {
    by_name_.emplace(tensors_[i].entry->name, i);
  }
}

const CheckpointTensor* Checkpoint::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace lorikeet
