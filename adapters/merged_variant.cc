#include "adapters/merged_variant.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

// Of a piece: some 0.1 ms of a machine of two cores.
constexpr int64_t kPieceElements = 256 << 10;

// The low-rank parts of a slot that are not merged, at a request's scale.
std::vector<LoraSlot::Entry> UnmergedEntries(const LoraSlot& from,
                                             float scale) {
  std::vector<LoraSlot::Entry> entries;
  for (const LinearId id : {LinearId::EmbedTokens(), LinearId::LmHead()}) {
    const LoraSlot::Entry* entry = from.Find(id);
    if (entry == nullptr) continue;
    const size_t i = static_cast<size_t>(id.index());
    if (entries.size() <= i) entries.resize(i + 1);
    entries[i] = *entry;
    entries[i].scaling *= scale;
  }
  return entries;
}

}  // namespace

absl::Status CheckMergeable(const AdapterFeatures& features) {
  if (features.invocation_tokens.empty()) return absl::OkStatus();
  return WithReason(
      absl::InvalidArgumentError(
          "has alora_invocation_tokens: it acts on a part of the prompt only "
          "and has no merged variant"),
      "MERGE_UNSUPPORTED");
}

int64_t MaxMergedBytes(const BaseWeights& base) {
  int64_t bytes = 0;
  for (int32_t layer = 0; layer < base.model().config().num_layers; ++layer) {
    for (int p = 0; p < kNumProjections; ++p) {
      bytes += base.weight({layer, static_cast<Projection>(p)}).size_bytes();
    }
  }
  return bytes;
}

MergedVariantBuilder::MergedVariantBuilder(const BaseWeights& base, Ops& ops,
                                           MergedBuffers& buffers,
                                           std::vector<LoraTerm> terms)
    : base_(base),
      ops_(ops),
      buffers_(buffers),
      terms_(std::move(terms)),
      slot_(std::make_shared<LoraSlot>()),
      variant_(std::make_shared<MergedVariant>()) {
  CHECK(!terms_.empty());
  slot_->generation = terms_[0].slot->generation;
  const int64_t layers = base.model().config().num_layers;
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (int p = 0; p < kNumProjections; ++p) {
      AddLinear({layer, static_cast<Projection>(p)});
    }
  }
  KeepTheRest();
}

void MergedVariantBuilder::AddLinear(LinearId id) {
  const bool is_merged = std::ranges::any_of(
      terms_,
      [id](const LoraTerm& term) { return term.slot->Find(id) != nullptr; });
  if (!is_merged) return;
  linears_.push_back(id);
  bytes_total_ += base_.weight(id).size_bytes();
}

void MergedVariantBuilder::KeepTheRest() {
  variant_->slots.push_back(slot_);
  variant_->terms.push_back({slot_.get(), 1});
  if (terms_.size() > 1) {  // plain: nothing is overridden
    for (const LoraTerm& term : terms_) {
      auto rest = std::make_shared<LoraSlot>();
      rest->entries = UnmergedEntries(*term.slot, term.scale);
      if (rest->entries.empty()) continue;
      variant_->terms.push_back({rest.get(), 1});
      variant_->slots.push_back(std::move(rest));
    }
    return;
  }
  const LoraSlot& from = *terms_[0].slot;
  slot_->entries = UnmergedEntries(from, terms_[0].scale);
  slot_->norms = from.norms;
  for (const auto& o : from.overrides) {
    slot_->overrides.push_back(
        o == nullptr ? nullptr : std::make_unique<LoraSlot::Override>(*o));
  }
}

absl::Status MergedVariantBuilder::RunPiece(Stream& stream) {
  CHECK(!done());
  const LinearId id = linears_[next_];
  const PackedWeight& base = base_.weight(id);
  if (!merge_.has_value()) {
    merge_ = LinearMerge::Create(base_, id, terms_);
    weight_ = buffers_.Take(base);
    next_row_ = 0;
    if (weight_ == nullptr) return Finish(merge_->Pack(ops_, base.dtype()));
  }
  const int64_t rows =
      std::max<int64_t>(1, kPieceElements / base.in_dim() / kMergeRows) *
      kMergeRows;
  const int64_t end = std::min(base.out_dim(), next_row_ + rows);
  merge_->Into(ops_, next_row_, end, *weight_, stream);
  bytes_done_ += base.size_bytes() * (end - next_row_) / base.out_dim();
  next_row_ = end;
  if (end < base.out_dim()) return absl::OkStatus();
  return Finish(std::move(weight_));
}

absl::Status MergedVariantBuilder::Finish(
    std::shared_ptr<const PackedWeight> weight) {
  if (weight == nullptr) {
    return WithReason(
        absl::ResourceExhaustedError(absl::StrCat(
            "merged weights of ", bytes_total_,
            " bytes do not fit into the device's memory, of which ",
            ops_.free_bytes(), " bytes are free after ", variant_->size_bytes)),
        "DEVICE_FULL");
  }
  const size_t i = static_cast<size_t>(linears_[next_].index());
  if (slot_->overrides.size() <= i) slot_->overrides.resize(i + 1);
  auto& o = slot_->overrides[i];
  if (o == nullptr) o = std::make_unique<LoraSlot::Override>();
  variant_->size_bytes += weight->size_bytes();
  o->weight = std::move(weight);
  o->gain.clear();  // it is in the weight
  merge_.reset();
  ++next_;
  return absl::OkStatus();
}

std::shared_ptr<const MergedVariant> MergedVariantBuilder::Take() {
  CHECK(done() && variant_ != nullptr);
  return std::move(variant_);
}

}  // namespace lorikeet
