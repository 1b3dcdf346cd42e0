#include "cli/demo_manifest.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/status.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxManifestBytes = 16 << 20;
constexpr int64_t kMaxTokens = 1 << 20;

// The objects of a list.
absl::StatusOr<std::vector<const Json*>> Objects(JsonReader& reader,
                                                 absl::string_view key) {
  std::vector<const Json*> objects;
  const Json* list = reader.Get(key);
  if (list == nullptr) return objects;
  if (!list->is_array()) return reader.Error(key, "is not a list");
  for (const Json& item : list->items()) {
    if (!item.is_object()) {
      return reader.Error(key, "is not a list of objects");
    }
    objects.push_back(&item);
  }
  return objects;
}

absl::StatusOr<DemoPrompt> ParsePrompt(const Json& json,
                                       const std::string& what,
                                       absl::string_view expected_key,
                                       absl::string_view answer_prefix,
                                       int64_t max_tokens) {
  JsonReader reader(json, what);
  RETURN_IF_ERROR(reader.Require("prompt"));
  RETURN_IF_ERROR(reader.Require(expected_key));
  DemoPrompt prompt;
  ASSIGN_OR_RETURN(prompt.prompt, reader.String("prompt", ""));
  ASSIGN_OR_RETURN(prompt.expected, reader.String(expected_key, ""));
  prompt.expected = absl::StrCat(answer_prefix, prompt.expected);
  ASSIGN_OR_RETURN(const int64_t tokens,
                   reader.Int("max_tokens", max_tokens, 1, kMaxTokens));
  prompt.max_tokens = static_cast<uint32_t>(tokens);
  return prompt;
}

absl::StatusOr<std::vector<DemoAdapter>> ParseAdapters(
    JsonReader& manifest, absl::string_view key,
    absl::string_view answer_prefix) {
  ASSIGN_OR_RETURN(const std::vector<const Json*> list, Objects(manifest, key));
  std::vector<DemoAdapter> adapters;
  for (const Json* json : list) {
    const std::string what = absl::StrCat("demo manifest ", key);
    JsonReader reader(*json, what);
    RETURN_IF_ERROR(reader.Require("name"));
    RETURN_IF_ERROR(reader.Require("dir"));
    DemoAdapter adapter;
    ASSIGN_OR_RETURN(adapter.name, reader.String("name", ""));
    ASSIGN_OR_RETURN(adapter.version, reader.String("version", ""));
    ASSIGN_OR_RETURN(adapter.dir, reader.String("dir", ""));
    ASSIGN_OR_RETURN(adapter.description, reader.String("description", ""));
    ASSIGN_OR_RETURN(const int64_t max_tokens,
                     reader.Int("max_tokens", 32, 1, kMaxTokens));
    ASSIGN_OR_RETURN(const std::vector<const Json*> examples,
                     Objects(reader, "examples"));
    for (const Json* example : examples) {
      ASSIGN_OR_RETURN(DemoPrompt prompt,
                       ParsePrompt(*example, absl::StrCat(what, " examples"),
                                   "expected", answer_prefix, max_tokens));
      adapter.prompts.push_back(std::move(prompt));
    }
    if (adapter.prompts.empty()) return reader.Error("examples", "is empty");
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

absl::StatusOr<std::vector<DemoPrompt>> ParseBase(const Json& json) {
  JsonReader reader(json, "demo manifest base");
  ASSIGN_OR_RETURN(const std::vector<const Json*> list,
                   Objects(reader, "prompts"));
  std::vector<DemoPrompt> prompts;
  for (const Json* item : list) {
    ASSIGN_OR_RETURN(DemoPrompt prompt,
                     ParsePrompt(*item, "demo manifest base prompts",
                                 "expected_text", "", 32));
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) return reader.Error("prompts", "is empty");
  return prompts;
}

}  // namespace

const DemoAdapter* DemoManifest::FindAdapter(absl::string_view name) const {
  for (const DemoAdapter& adapter : adapters) {
    if (adapter.name == name) return &adapter;
  }
  return nullptr;
}

absl::StatusOr<DemoManifest> ParseDemoManifest(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json json, Json::Parse(text));
  if (!json.is_object()) {
    return absl::InvalidArgumentError("demo manifest is not an object");
  }
  JsonReader reader(json, "demo manifest");
  RETURN_IF_ERROR(reader.Require("stop"));
  RETURN_IF_ERROR(reader.Require("base"));
  RETURN_IF_ERROR(reader.Require("adapters"));
  DemoManifest manifest;
  ASSIGN_OR_RETURN(manifest.stop, reader.String("stop", ""));
  ASSIGN_OR_RETURN(const std::string answer_prefix,
                   reader.String("answer_prefix", ""));
  const Json* base = reader.Get("base");
  if (!base->is_object()) return reader.Error("base", "is not an object");
  ASSIGN_OR_RETURN(manifest.base_prompts, ParseBase(*base));
  ASSIGN_OR_RETURN(manifest.adapters,
                   ParseAdapters(reader, "adapters", answer_prefix));
  ASSIGN_OR_RETURN(manifest.updates,
                   ParseAdapters(reader, "updates", answer_prefix));
  return manifest;
}

absl::StatusOr<DemoManifest> ReadDemoManifest(const std::string& demo_dir) {
  PosixFileSystem fs;
  const std::string path = JoinPath(demo_dir, "manifest.json");
  ASSIGN_OR_RETURN(const std::string text,
                   fs.ReadFile(path, kMaxManifestBytes));
  absl::StatusOr<DemoManifest> manifest = ParseDemoManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), path);
  return manifest;
}

}  // namespace lorikeet
