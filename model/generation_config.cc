#include "model/generation_config.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "model/end_tokens.h"

namespace lorikeet {
namespace {

absl::Status ReadFloat(JsonReader& reader, absl::string_view key, double min,
                       double max, std::optional<float>* out) {
  if (reader.Get(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const double value, reader.Double(key, 0, min, max));
  *out = static_cast<float>(value);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationConfig> GenerationConfig::Parse(
    absl::string_view text) {
  absl::StatusOr<Json> root = Json::Parse(text);
  if (!root.ok()) return Annotate(root.status(), "generation_config.json");
  if (!root->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("generation_config.json is ",
                                                   root->TypeName(),
                                                   ", expected an object"));
  }
  JsonReader reader(*root, "generation_config.json");
  GenerationConfig config;
  ASSIGN_OR_RETURN(config.eos_tokens, ReadEndTokens(reader));
  if (reader.Get("do_sample") != nullptr) {
    ASSIGN_OR_RETURN(config.do_sample, reader.Bool("do_sample", false));
  }
  if (reader.Get("top_k") != nullptr) {
    ASSIGN_OR_RETURN(
        const int64_t top_k,
        reader.Int("top_k", 0, 0, std::numeric_limits<int32_t>::max()));
    config.top_k = static_cast<int32_t>(top_k);
  }
  // Smallest values above 0: the fields stand where 0 has no meaning.
  constexpr double kTiny = 1e-9;
  RETURN_IF_ERROR(
      ReadFloat(reader, "temperature", 0, 1e4, &config.temperature));
  RETURN_IF_ERROR(ReadFloat(reader, "top_p", kTiny, 1, &config.top_p));
  RETURN_IF_ERROR(ReadFloat(reader, "min_p", 0, 1, &config.min_p));
  RETURN_IF_ERROR(ReadFloat(reader, "repetition_penalty", kTiny, 1e4,
                            &config.repetition_penalty));
  return config;
}

}  // namespace lorikeet
