#include "server/frontend/composition.h"

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

std::string PartField(size_t i, absl::string_view field) {
  return absl::StrCat("adapters[", i, "].", field);
}

absl::Status TooLarge(absl::string_view rest, int64_t value, int64_t limit) {
  absl::Status status = FieldError("adapters", rest, "COMPOSITION_TOO_LARGE");
  status = WithMetadata(std::move(status), "value", absl::StrCat(value));
  return WithMetadata(std::move(status), "limit", absl::StrCat(limit));
}

absl::Status CheckFeatures(const AdapterPart& part,
                           const RequestAdapter& adapter, size_t i,
                           bool is_alone) {
  const AdapterFeatures& features = adapter.version->features;
  if (features.is_plain()) return absl::OkStatus();
  const std::string which =
      absl::StrCat(Quote(part.name), ", an adapter with ",
                   absl::StrJoin(features.keys, ", "), ", which ");
  if (!is_alone) {
    return FieldError(PartField(i, "name"),
                      absl::StrCat("is ", which, "cannot be composed"),
                      "COMPOSITION_UNSUPPORTED");
  }
  if (adapter.scale == 1) return absl::OkStatus();
  return FieldError(
      PartField(i, "scale"),
      absl::StrCat("is ", adapter.scale, " for ", which, "has no scale but 1"),
      "COMPOSITION_UNSUPPORTED");
}

}  // namespace

absl::Status CheckParts(const std::vector<AdapterPart>& parts) {
  if (parts.size() > kMaxAdapterParts) {
    return TooLarge(absl::StrCat("has ", parts.size(),
                                 " entries, the limit is ", kMaxAdapterParts),
                    static_cast<int64_t>(parts.size()), kMaxAdapterParts);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    const float scale = parts[i].scale.value_or(1);
    // NaN is in no range.
    if (std::abs(scale) <= kMaxAdapterScale) continue;
    return RangeError(
        PartField(i, "scale"), absl::StrCat(scale),
        absl::StrCat("[-", kMaxAdapterScale, ", ", kMaxAdapterScale, "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckComposition(const std::vector<AdapterPart>& parts,
                              std::span<const RequestAdapter> adapters,
                              const ModelInfo& model) {
  const bool is_alone = adapters.size() == 1;
  std::set<AdapterKey> keys;
  int64_t total_rank = 0;
  for (size_t i = 0; i < adapters.size(); ++i) {
    if (const absl::Status status =
            CheckFeatures(parts[i], adapters[i], i, is_alone);
        !status.ok()) {
      return status;
    }
    keys.insert(adapters[i].version->key);
    total_rank += adapters[i].version->max_rank;
  }
  if (is_alone) return absl::OkStatus();
  const int64_t count = static_cast<int64_t>(keys.size());
  if (count > model.max_loras) {
    return TooLarge(absl::StrCat("names ", count, " adapters, max_loras is ",
                                 model.max_loras),
                    count, model.max_loras);
  }
  if (total_rank > model.max_lora_rank) {
    return TooLarge(
        absl::StrCat("has rank ", total_rank, " in total, max_lora_rank is ",
                     model.max_lora_rank),
        total_rank, model.max_lora_rank);
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
