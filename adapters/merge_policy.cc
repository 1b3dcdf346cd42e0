#include "adapters/merge_policy.h"

namespace lorikeet {

const char* Name(Variant variant) {
  return variant == Variant::kMerged ? "merged" : "unmerged";
}

const char* Name(MergePolicy policy) {
  switch (policy) {
    case MergePolicy::kNever:
      return "never";
    case MergePolicy::kAlways:
      return "always";
    case MergePolicy::kAuto:
      return "auto";
  }
  return "";
}

std::optional<MergePolicy> ParseMergePolicy(absl::string_view text) {
  for (const MergePolicy policy :
       {MergePolicy::kNever, MergePolicy::kAlways, MergePolicy::kAuto}) {
    if (text == Name(policy)) return policy;
  }
  return std::nullopt;
}

}  // namespace lorikeet
