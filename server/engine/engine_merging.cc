// Which variant a request gets is settled when the engine thread sees it first.
// Who gets a merged one that is not there yet waits in a line of its own and
// comes to the scheduler, with its old time of arrival, once it is there.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/status.h"
#include "server/engine/engine_impl.h"

namespace lorikeet {
namespace {

// A request in the line that was passed this often by others whose variants
// were there: from then on nobody passes, so that a place becomes free.
constexpr int64_t kMaxPasses = 64;
// Costs are measured again at times, while nothing runs: other processes come
// and go.
constexpr absl::Duration kMeasureAgain = absl::Minutes(10);

}  // namespace

// ---- any thread ------------------------------------------------------------

absl::Status EngineImpl::CheckVariant(const EngineRequest& request) const {
  if (request.variant != Variant::kMerged) return absl::OkStatus();
  if (request.adapters.empty()) {
    return WithReason(
        absl::InvalidArgumentError(
            "variant merged needs an adapter, the base model has one variant"),
        "MERGE_UNSUPPORTED");
  }
  for (const RequestAdapter& adapter : request.adapters) {
    RETURN_IF_ERROR(Annotate(CheckMergeable(adapter.version->features),
                             absl::StrCat("variant merged: adapter ",
                                          adapter.version->key.ToString())));
  }
  if (options_.max_merged > 0 && model_.weights.has_value()) {
    return absl::OkStatus();
  }
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "variant merged is not offered: max_merged is ",
                        options_.max_merged)),
                    "MERGE_OFF");
}

int64_t EngineImpl::DropMerged(const std::string& tenant,
                               const std::string& name) {
  int64_t bytes = 0;
  if (options_.max_merged == 0) return bytes;
  inbox_->Run([&] {
    if (merged_ != nullptr) bytes = merged_->Drop(tenant, name);
  });
  return bytes;
}

MergeState EngineImpl::merge_state() {
  MergeState state;
  state.policy = options_.merge;
  state.max_merged = options_.max_merged;
  inbox_->Run([&] {
    state.choices = chooser_.Explain();
    state.costs = chooser_.costs();
    if (merged_ == nullptr) return;
    state.max_merged = static_cast<int32_t>(merged_->max_variants());
    state.variants = merged_->List();
    state.last_merge = merged_->last_merge();
  });
  return state;
}

// ---- engine thread ---------------------------------------------------------

Variant EngineImpl::ChooseVariant(const RequestState& request) {
  const EngineRequest& r = request.request;
  if (merged_ == nullptr || r.adapters.empty() || request.adapters_from != 0) {
    return Variant::kUnmerged;
  }
  if (r.variant.has_value()) return *r.variant;
  if (r.adapters.size() > 1 || r.adapters[0].scale != 1) {
    return Variant::kUnmerged;
  }
  switch (r.merge_policy.value_or(options_.merge)) {
    case MergePolicy::kNever:
      break;
    case MergePolicy::kAlways:
      return Variant::kMerged;
    case MergePolicy::kAuto:
      return ChooseByCost(request);
  }
  return Variant::kUnmerged;
}

Variant EngineImpl::ChooseByCost(const RequestState& request) {
  uses_auto_ = true;
  // Rounded to 8 bits once more, an adapter may lose what it was trained for.
  if (model_.weights->model().dtype() == DType::kI8) return Variant::kUnmerged;
  const std::vector<RequestAdapter>& adapters = request.request.adapters;
  const MergeKey key = MergeKeyOf(adapters);
  const AdapterVersionInfo& version = *adapters[0].version;
  const bool is_made = merged_->Contains(key);
  const MergeChoice choice =
      chooser_.Choose(version.key, version.size_bytes, is_made);
  if (choice.merge && is_made) return Variant::kMerged;
  if (choice.merge) {
    merged_->Want(adapters, /*is_needed=*/false);
  } else {
    merged_->Unwant(key);
  }
  return Variant::kUnmerged;
}

void EngineImpl::AdmitMerged() {
  if (!std::exchange(merge_line_changed_, false)) return;
  std::vector<RequestState*> waiting;
  bool nobody_passes = false;
  for (RequestState* request : merge_line_) {
    const std::vector<RequestAdapter>& adapters = request->request.adapters;
    if (!nobody_passes) request->merged = merged_->Find(MergeKeyOf(adapters));
    if (request->merged == nullptr) {
      merged_->Want(adapters, /*is_needed=*/true);
      waiting.push_back(request);
      nobody_passes |= request->merge_passes >= kMaxPasses;
      continue;
    }
    for (RequestState* older : waiting) ++older->merge_passes;
    request->needed.clear();
    Admit(request);
  }
  merge_line_ = std::move(waiting);
}

void EngineImpl::FailMerges() {
  for (const auto& [key, error] : merged_->TakeFailures()) {
    const std::vector<RequestState*> line = merge_line_;
    for (RequestState* request : line) {
      if (MergeKeyOf(request->request.adapters) == key) {
        Fail(request->id, error);
      }
    }
  }
}

void EngineImpl::LeaveMergeLine(RequestState* request) {
  if (std::erase(merge_line_, request) == 0) return;
  const MergeKey key = MergeKeyOf(request->request.adapters);
  const bool is_needed =
      std::ranges::any_of(merge_line_, [&](const RequestState* other) {
        return MergeKeyOf(other->request.adapters) == key;
      });
  if (!is_needed) merged_->Unwant(key);
  merge_line_changed_ = true;
}

bool EngineImpl::WorkBetweenSteps(absl::Duration budget, bool is_idle) {
  if (merged_ == nullptr) return false;
  const int64_t num_made = merged_->num_made();
  const bool has_worked = merged_->RunSlice(budget);
  FailMerges();
  if (!has_worked) return MeasureCosts(is_idle);
  if (merged_->num_made() > num_made) {
    merge_line_changed_ = true;
    StepCosts costs = chooser_.costs();
    costs.merge = absl::ToDoubleSeconds(merged_->last_merge());
    chooser_.SetCosts(costs);
  }
  return true;
}

bool EngineImpl::MeasureCosts(bool is_idle) {
  if (!is_idle || !uses_auto_ || merged_ == nullptr) return false;
  const absl::Duration now = clock_.Now();
  if (measured_.has_value() && now - *measured_ < kMeasureAgain) return false;
  absl::StatusOr<std::optional<StepCosts>> costs = MeasurePiece();
  if (costs.ok() && !costs->has_value()) return true;
  probe_.reset();
  measured_ = clock_.Now();
  if (!costs.ok()) {  // those of before stay
    Log(LogLevel::kWarning, "the costs of steps cannot be measured",
        {{"why", std::string(costs.status().message())}});
    return true;
  }
  if (merged_->num_made() > 0) {
    (*costs)->merge = absl::ToDoubleSeconds(merged_->last_merge());
  }
  chooser_.SetCosts(**costs);
  return true;
}

absl::StatusOr<std::optional<StepCosts>> EngineImpl::MeasurePiece() {
  if (probe_ == nullptr) {
    ASSIGN_OR_RETURN(probe_,
                     StepCostProbe::Create(*model_.weights, *model_.ops, clock_,
                                           options_.max_num_seqs));
  }
  return probe_->RunPiece();
}

void EngineImpl::ObserveRows(const StepPlan& plan, absl::Duration now) {
  if (!uses_auto_ || merged_ == nullptr) return;
  std::vector<MergeChooser::Rows> rows;
  int64_t base_rows = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    const RequestState& request = *requests_.at(planned.request);
    const std::vector<RequestAdapter>& adapters = request.request.adapters;
    if (adapters.size() != 1 || !request.has_adapted_rows()) {
      base_rows += request.merged == nullptr ? 1 : 0;
      continue;
    }
    const AdapterKey& key = adapters[0].version->key;
    const auto it = std::ranges::find_if(
        rows, [&](const auto& r) { return *r.first == key; });
    if (it == rows.end()) {
      rows.emplace_back(&key, 1);
    } else {
      ++it->second;
    }
  }
  chooser_.Observe(now, rows, base_rows);
}

}  // namespace lorikeet
