#include "server/scheduler/merge_chooser.h"

#include <algorithm>
#include <cmath>

namespace lorikeet {
namespace {

// An adapter with less of a row per step is forgotten.
constexpr double kFewRows = 1e-3;

}  // namespace

const char* Name(MergeReason reason) {
  switch (reason) {
    case MergeReason::kNotMeasured:
      return "not measured";
    case MergeReason::kIdle:
      return "idle";
    case MergeReason::kCheaper:
      return "cheaper";
    case MergeReason::kDearer:
      return "dearer";
    case MergeReason::kNoGain:
      return "no gain";
    case MergeReason::kTooShort:
      return "too short";
  }
  return "";
}

double StepCosts::Linears(double rows) const {
  if (passes.empty() || rows <= 0) return 0;
  if (rows <= 1) return rows * passes.front().seconds;
  for (size_t i = 1; i < passes.size(); ++i) {
    const Pass& from = passes[i - 1];
    const Pass& to = passes[i];
    if (rows > static_cast<double>(to.rows)) continue;
    const double share = (rows - static_cast<double>(from.rows)) /
                         static_cast<double>(to.rows - from.rows);
    return from.seconds + share * (to.seconds - from.seconds);
  }
  // Beyond the last a pass computes rather than reads.
  const Pass& last = passes.back();
  return last.seconds * rows / static_cast<double>(last.rows);
}

double StepCosts::Lora(int64_t bytes, double rows) const {
  return static_cast<double>(bytes) *
         (lora_per_byte * std::min(rows, 1.0) + lora_per_byte_and_row * rows);
}

MergeChoice ChooseMerge(const StepCosts& costs, const MergeLoad& load,
                        bool was_merged, bool is_made, double margin) {
  MergeChoice choice;
  choice.merge = was_merged;
  if (costs.passes.empty()) {
    choice.merge = false;
    choice.reason = MergeReason::kNotMeasured;
    return choice;
  }
  if (load.rows <= 0) return choice;
  choice.unmerged_seconds = costs.Linears(load.rows + load.others) +
                            costs.Lora(load.adapter_bytes, load.rows);
  choice.merged_seconds = costs.Linears(load.rows) + costs.Linears(load.others);
  if (choice.unmerged_seconds <= 0) return choice;
  const double gain = 1 - choice.merged_seconds / choice.unmerged_seconds;
  if (gain < -margin) {
    choice.merge = false;
    choice.reason = MergeReason::kDearer;
  } else if (gain <= margin) {
    choice.reason = MergeReason::kNoGain;
  } else if (!is_made && gain * absl::ToDoubleSeconds(MergeChooser::kHorizon) <
                             costs.merge) {
    choice.merge = false;
    choice.reason = MergeReason::kTooShort;
  } else {
    choice.merge = true;
    choice.reason = MergeReason::kCheaper;
  }
  return choice;
}

void MergeChooser::Observe(absl::Duration now, std::span<const Rows> adapters,
                           int64_t base_rows) {
  const double passed = absl::ToDoubleSeconds(now - last_);
  last_ = now;
  const double keep = std::exp(-passed / absl::ToDoubleSeconds(kMemory));
  base_rows_ = keep * base_rows_ + (1 - keep) * static_cast<double>(base_rows);
  for (auto& [key, adapter] : adapters_) adapter.rows *= keep;
  for (const auto& [key, rows] : adapters) {
    adapters_[*key].rows += (1 - keep) * static_cast<double>(rows);
  }
  std::erase_if(adapters_,
                [](const auto& a) { return a.second.rows < kFewRows; });
}

double MergeChooser::OthersOf(const AdapterKey& key) const {
  double others = base_rows_;
  for (const auto& [other, adapter] : adapters_) {
    if (other != key && !adapter.choice.merge) others += adapter.rows;
  }
  return others;
}

MergeChoice MergeChooser::Choose(const AdapterKey& key, int64_t adapter_bytes,
                                 bool is_made) {
  const auto it = adapters_.find(key);
  if (it == adapters_.end()) {
    return ChooseMerge(costs_, MergeLoad(), /*was_merged=*/false, is_made,
                       kMargin);
  }
  Adapter& adapter = it->second;
  adapter.bytes = adapter_bytes;
  const bool was_merged = adapter.choice.merge;
  const bool is_fresh = last_ - adapter.changed < kHorizon;
  adapter.choice =
      ChooseMerge(costs_, {adapter.rows, OthersOf(key), adapter_bytes},
                  was_merged, is_made, is_fresh ? kFreshMargin : kMargin);
  if (adapter.choice.merge != was_merged) adapter.changed = last_;
  return adapter.choice;
}

std::map<AdapterKey, MergeChooser::Known> MergeChooser::Explain() const {
  std::map<AdapterKey, Known> known;
  for (const auto& [key, adapter] : adapters_) {
    known[key] = {adapter.choice, {adapter.rows, OthersOf(key), adapter.bytes}};
  }
  return known;
}

}  // namespace lorikeet
