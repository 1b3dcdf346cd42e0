#include "adapters/merge.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "adapters/dora.h"
#include "base/check.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Rows made at once by Pack: few, so that A stays in cache for them.
constexpr int64_t kRows = 64;

void CopyRow(ConstTensor from, int64_t row, float* to) {
  for (int64_t k = 0; k < from.cols; ++k) to[k] = from.At(row, k);
}

}  // namespace

absl::Status LinearMerge::Add(const LoraModule& module, float scale, Ops& ops) {
  ASSIGN_OR_RETURN(std::unique_ptr<PackedLora> packed,
                   PackForTable(module, ops));
  owned_.push_back(std::move(packed));
  terms_.push_back(
      {owned_.back().get(), static_cast<float>(module.scaling) * scale});
  if (module.magnitude.data == nullptr) return absl::OkStatus();
  CHECK(gain_.empty());
  ASSIGN_OR_RETURN(gain_, DoraGain(module, base_, ops));
  return absl::OkStatus();
}

absl::StatusOr<LinearMerge> LinearMerge::Create(
    const BaseWeights& base, Ops& ops, LinearId id,
    std::span<const MergeAdapter> adapters) {
  LinearMerge merge(base, id);
  for (const MergeAdapter& adapter : adapters) {
    for (const LoraModule& module : adapter.weights->modules) {
      if (module.id != id) continue;
      RETURN_IF_ERROR(merge.Add(module, adapter.scale, ops));
    }
    for (const SavedParameter& saved : adapter.weights->saved) {
      if (saved.parameter.kind != BaseParameter::Kind::kWeight ||
          saved.parameter.linear != id) {
        continue;
      }
      merge.saved_ = saved.values;
    }
    for (const ReplacedRows& rows : adapter.weights->replaced_rows) {
      if (rows.id != id) continue;
      merge.replaced_.push_back({rows.tokens, nullptr, rows.rows});
    }
  }
  return merge;
}

LinearMerge LinearMerge::Create(const BaseWeights& base, LinearId id,
                                std::span<const LoraTerm> terms) {
  CHECK(id != LinearId::EmbedTokens());
  LinearMerge merge(base, id);
  for (const LoraTerm& term : terms) {
    if (const LoraSlot::Entry* entry = term.slot->Find(id)) {
      merge.terms_.push_back(
          {entry->weights.get(), entry->scaling * term.scale});
    }
    const LoraSlot::Override* o = term.slot->FindOverride(id);
    if (o == nullptr) continue;
    if (o->weight != nullptr) merge.weight_ = o->weight.get();
    if (!o->gain.empty()) merge.gain_ = o->gain;
    if (o->rows != nullptr) {
      merge.replaced_.push_back({o->replaced, o->rows.get(), {}});
    }
  }
  return merge;
}

bool LinearMerge::Changes(LinearId id, std::span<const MergeAdapter> adapters) {
  return std::ranges::any_of(adapters, [id](const MergeAdapter& adapter) {
    const AdapterWeights& w = *adapter.weights;
    return std::ranges::find(w.modules, id, &LoraModule::id) !=
               w.modules.end() ||
           std::ranges::find(w.replaced_rows, id, &ReplacedRows::id) !=
               w.replaced_rows.end() ||
           std::ranges::any_of(w.saved, [id](const SavedParameter& s) {
             return s.parameter.kind == BaseParameter::Kind::kWeight &&
                    s.parameter.linear == id;
           });
  });
}

void LinearMerge::Rows(int64_t row_begin, Tensor out) const {
  CHECK(row_begin >= 0 && row_begin + out.rows <= rows());
  CHECK_EQ(out.cols, cols());
  if (saved_.data != nullptr) {
    for (int64_t i = 0; i < out.rows; ++i) {
      CopyRow(saved_, row_begin + i, out.f32(i));
    }
  } else {
    base_.ops().MergeRows(*weight_, terms_, row_begin, out);
  }
  if (!gain_.empty()) ApplyGain(row_begin, out);
  if (!replaced_.empty()) ReplaceRows(row_begin, out);
}

void LinearMerge::ApplyGain(int64_t row_begin, Tensor out) const {
  const bool by_column = id_ == LinearId::EmbedTokens();
  for (int64_t i = 0; i < out.rows; ++i) {
    float* row = out.f32(i);
    for (int64_t k = 0; k < out.cols; ++k) {
      row[k] *= gain_[static_cast<size_t>(by_column ? k : row_begin + i)];
    }
  }
}

void LinearMerge::ReplaceRows(int64_t row_begin, Tensor out) const {
  for (const Replaced& replaced : replaced_) {
    for (size_t r = 0; r < replaced.tokens.size(); ++r) {
      const int64_t row = replaced.tokens[r] - row_begin;
      if (row < 0 || row >= out.rows) continue;
      const int64_t from = static_cast<int64_t>(r);
      if (replaced.packed != nullptr) {
        base_.ops().MergeRows(*replaced.packed, {}, from, out.Rows(row, 1));
      } else {
        CopyRow(replaced.values, from, out.f32(row));
      }
    }
  }
}

void LinearMerge::Into(Ops& ops, int64_t row_begin, int64_t row_end,
                       PackedWeight& to, Stream& stream) const {
  CHECK(saved_.data == nullptr && replaced_.empty());
  ops.Merge(*weight_, terms_, gain_.empty() ? nullptr : gain_.data(), row_begin,
            row_end, to, stream);
}

std::unique_ptr<PackedWeight> LinearMerge::Pack(Ops& ops, DType dtype) const {
  const Buffer bytes(rows() * cols() * static_cast<int64_t>(sizeof(float)));
  const Tensor whole = Tensor::F32(bytes.as<float>(), rows(), cols());
  for (int64_t row = 0; row < rows(); row += kRows) {
    Rows(row, whole.Rows(row, std::min(kRows, rows() - row)));
  }
  return ops.PackWeight(whole, dtype);
}

}  // namespace lorikeet
