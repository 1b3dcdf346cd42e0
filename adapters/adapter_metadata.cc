#include "adapters/adapter_metadata.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxDisplayNameBytes = 63;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 63;

using Labels = std::vector<std::pair<std::string, std::string>>;

}  // namespace

absl::Status CheckMetadata(const std::string& display_name,
                           const Labels& labels) {
  const auto invalid = [](absl::string_view message) {
    return WithReason(absl::InvalidArgumentError(message), "INVALID_METADATA");
  };
  if (display_name.size() > kMaxDisplayNameBytes ||
      !IsValidUtf8(display_name)) {
    return invalid(absl::StrCat("display_name ", Quote(display_name, 80),
                                " is not UTF-8 of at most ",
                                kMaxDisplayNameBytes, " bytes"));
  }
  if (labels.size() > kMaxLabels) {
    return invalid(
        absl::StrCat(labels.size(), " labels, the limit is ", kMaxLabels));
  }
  absl::flat_hash_set<absl::string_view> keys;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelBytes ||
        value.size() > kMaxLabelBytes || !IsValidUtf8(key) ||
        !IsValidUtf8(value)) {
      return invalid(absl::StrCat("label ", Quote(key, 80),
                                  " is not UTF-8 of at most ", kMaxLabelBytes,
                                  " bytes"));
    }
    if (!keys.insert(key).second) {
      return invalid(absl::StrCat("label ", Quote(key), " stands twice"));
    }
  }
  return absl::OkStatus();
}

AdapterVersionInfo MakeVersionInfo(const AdapterWeights& weights,
                                   AdapterKey key, const Digest& base,
                                   uint64_t size_bytes, absl::Time now) {
  AdapterVersionInfo info;
  info.key = std::move(key);
  info.base_fingerprint = base;
  info.create_time = now;
  info.max_rank = weights.max_rank;
  info.alpha = weights.alpha;
  info.use_rslora = weights.use_rslora;
  info.warnings = weights.warnings;
  info.features = weights.features;
  info.size_bytes = static_cast<int64_t>(size_bytes);
  bool used[kNumProjections] = {};
  for (const LoraModule& module : weights.modules) {
    if (module.id.is_of_layer()) {
      used[static_cast<size_t>(module.id.projection)] = true;
    } else {
      info.target_modules.push_back(
          module.id == LinearId::LmHead() ? "lm_head" : "embed_tokens");
    }
    info.modules.push_back({module.name, module.rank, module.scaling});
  }
  for (int i = 0; i < kNumProjections; ++i) {
    if (used[i]) info.target_modules.push_back(kProjectionNames[i]);
  }
  return info;
}

}  // namespace lorikeet
