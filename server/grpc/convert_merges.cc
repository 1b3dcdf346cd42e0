#include "server/grpc/convert_merges.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/frontend/error.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

v1::MergedVariant::State StateOf(MergedInfo::State state) {
  switch (state) {
    case MergedInfo::State::kWaiting:
      return v1::MergedVariant::STATE_WAITING;
    case MergedInfo::State::kMerging:
      return v1::MergedVariant::STATE_MERGING;
    case MergedInfo::State::kMerged:
      return v1::MergedVariant::STATE_MERGED;
  }
  return v1::MergedVariant::STATE_UNSPECIFIED;
}

void Fill(const MergedInfo& in, v1::MergedVariant* out) {
  for (const auto& [key, scale] : in.adapters) {
    out->add_adapters(key.ToString());
    out->add_scales(scale);
  }
  out->set_state(StateOf(in.state));
  out->set_bytes(static_cast<uint64_t>(in.bytes));
  out->set_bytes_total(static_cast<uint64_t>(in.bytes_total));
  out->set_requests(static_cast<uint32_t>(in.requests));
}

void Fill(const MergeChooser::Known& in, v1::MergeChoice* out) {
  out->set_merged(in.choice.merge);
  out->set_reason(Name(in.choice.reason));
  out->set_rows(in.load.rows);
  out->set_other_rows(in.load.others);
  ToProto(absl::Seconds(in.choice.unmerged_seconds),
          out->mutable_unmerged_step());
  ToProto(absl::Seconds(in.choice.merged_seconds), out->mutable_merged_step());
}

void Fill(const StepCosts& in, v1::MergeCosts* out) {
  for (const StepCosts::Pass& pass : in.passes) {
    v1::MergeCosts::Pass* const p = out->add_passes();
    p->set_rows(static_cast<uint32_t>(pass.rows));
    ToProto(absl::Seconds(pass.seconds), p->mutable_time());
  }
  out->set_lora_seconds_per_byte(in.lora_per_byte);
  out->set_lora_seconds_per_byte_and_row(in.lora_per_byte_and_row);
  ToProto(absl::Seconds(in.merge), out->mutable_merge());
}

}  // namespace

absl::StatusOr<std::optional<Variant>> ToVariant(v1::Variant in) {
  switch (in) {
    case v1::VARIANT_UNSPECIFIED:
      return std::optional<Variant>();
    case v1::VARIANT_UNMERGED:
      return std::optional<Variant>(Variant::kUnmerged);
    case v1::VARIANT_MERGED:
      return std::optional<Variant>(Variant::kMerged);
    default:
      return FieldError("variant",
                        absl::StrCat("is ", static_cast<int>(in),
                                     ", which is none of the known ones"));
  }
}

v1::Variant ToProto(std::optional<Variant> in) {
  if (!in.has_value()) return v1::VARIANT_UNSPECIFIED;
  return *in == Variant::kMerged ? v1::VARIANT_MERGED : v1::VARIANT_UNMERGED;
}

void ToProto(const MergeState& in, v1::MergeState* out) {
  out->set_policy(Name(in.policy));
  out->set_max_merged(static_cast<uint32_t>(in.max_merged));
  for (const MergedInfo& variant : in.variants) {
    Fill(variant, out->add_variants());
  }
  for (const auto& [key, known] : in.choices) {
    v1::MergeChoice* const choice = out->add_choices();
    choice->set_adapter(key.ToString());
    Fill(known, choice);
  }
  if (!in.costs.passes.empty()) Fill(in.costs, out->mutable_costs());
}

void ToProto(const BaseVerifier::Report& in, v1::VerifyBaseResponse* out) {
  out->set_intact(in.is_intact);
  out->set_checksum(absl::StrFormat("%08x", in.found));
  out->set_expected_checksum(absl::StrFormat("%08x", in.expected));
  out->set_bytes(static_cast<uint64_t>(in.bytes));
  ToProto(in.took, out->mutable_duration());
  out->set_passes(static_cast<uint64_t>(in.passes));
  out->set_failures(static_cast<uint64_t>(in.failures));
}

}  // namespace lorikeet
