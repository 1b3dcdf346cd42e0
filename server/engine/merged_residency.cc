#include "server/engine/merged_residency.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr absl::Duration kPauseAfterFailure = absl::Seconds(10);

bool Names(const MergeKey& key, const std::string& tenant,
           const std::string& name) {
  return std::ranges::any_of(key, [&](const auto& part) {
    return part.first.tenant == tenant && part.first.name == name;
  });
}

}  // namespace

MergeKey MergeKeyOf(const std::vector<RequestAdapter>& adapters) {
  MergeKey key;
  for (const RequestAdapter& adapter : adapters) {
    key.emplace_back(adapter.version->key, adapter.scale);
  }
  return key;
}

struct MergedResidency::Job {
  Job(const BaseWeights& base, Ops& ops, MergedBuffers& buffers,
      std::vector<DeviceLease> l, std::vector<LoraTerm> terms)
      : leases(std::move(l)), builder(base, ops, buffers, std::move(terms)) {}

  const std::vector<DeviceLease> leases;
  MergedVariantBuilder builder;
  absl::Duration worked;
};

MergedResidency::MergedResidency(AdapterStore& store, const BaseWeights& base,
                                 Ops& ops, const Clock& clock, int max_variants)
    : store_(store),
      base_(base),
      ops_(ops),
      clock_(clock),
      max_variants_(static_cast<size_t>(max_variants)),
      stream_(ops.NewStream()),
      buffers_(ops) {
  CHECK_GE(max_variants, 0);
}

MergedResidency::~MergedResidency() = default;

std::shared_ptr<const MergedVariant> MergedResidency::Find(
    const MergeKey& key) {
  const auto it = variants_.find(key);
  if (it == variants_.end()) return nullptr;
  it->second.last_use = clock_.Now();
  return it->second.weights;
}

void MergedResidency::Want(const std::vector<RequestAdapter>& adapters,
                           bool is_needed) {
  CHECK_GT(max_variants_, size_t{0});
  MergeKey key = MergeKeyOf(adapters);
  const auto it = std::ranges::find(wishes_, key, &Wish::key);
  if (it != wishes_.end()) {
    it->is_needed |= is_needed;
    return;
  }
  if (Contains(key)) return;
  if (!is_needed && last_failure_.has_value() &&
      clock_.Now() - *last_failure_ < kPauseAfterFailure) {
    return;
  }
  Wish wish{std::move(key), adapters, is_needed};
  // Requests that wait go before mere wishes, but not before work begun.
  auto at = wishes_.end();
  if (is_needed) {
    at =
        std::find_if(wishes_.begin() + (job_ != nullptr ? 1 : 0), wishes_.end(),
                     [](const Wish& w) { return !w.is_needed; });
  }
  wishes_.insert(at, std::move(wish));
}

void MergedResidency::Unwant(const MergeKey& key) {
  const auto it = std::ranges::find(wishes_, key, &Wish::key);
  if (it == wishes_.end()) return;
  if (it == wishes_.begin()) job_.reset();
  wishes_.erase(it);
}

bool MergedResidency::MakeRoom(bool is_needed) {
  if (variants_.size() < max_variants_) return true;
  const absl::Duration now = clock_.Now();
  auto victim = variants_.end();
  for (auto it = variants_.begin(); it != variants_.end(); ++it) {
    const bool is_held = it->second.weights.use_count() > 1;
    const bool is_fresh = now - it->second.last_use < kMinIdle;
    if (is_held || (is_fresh && !is_needed)) continue;
    if (victim == variants_.end() ||
        it->second.last_use < victim->second.last_use) {
      victim = it;
    }
  }
  if (victim == variants_.end()) return false;
  variants_.erase(victim);
  return true;
}

std::vector<DeviceLease> MergedResidency::LeaseAll(const Wish& wish) {
  std::vector<DeviceLease> leases;
  absl::Status error;
  for (const RequestAdapter& adapter : wish.adapters) {
    const AdapterKey& key = adapter.version->key;
    DeviceLease lease = store_.TryLease(key);
    if (lease) {
      leases.push_back(std::move(lease));
      continue;
    }
    error = store_.LoadError(key);
    if (!error.ok()) break;
    store_.Prefetch(key);
  }
  if (!error.ok()) {
    failures_.emplace_back(wish.key, error);
    wishes_.pop_front();
  }
  // Those that are there do not wait in the way of the others.
  if (leases.size() < wish.adapters.size()) leases.clear();
  return leases;
}

bool MergedResidency::Begin() {
  while (!wishes_.empty() && job_ == nullptr) {
    const size_t left = wishes_.size();
    const Wish& wish = wishes_.front();
    std::vector<DeviceLease> leases = LeaseAll(wish);
    if (wishes_.size() < left) continue;
    if (leases.empty() || !MakeRoom(wish.is_needed)) return false;
    std::vector<LoraTerm> terms;
    for (size_t i = 0; i < leases.size(); ++i) {
      terms.push_back({leases[i].slot(), wish.adapters[i].scale});
    }
    job_ = std::make_unique<Job>(base_, ops_, buffers_, std::move(leases),
                                 std::move(terms));
  }
  return job_ != nullptr;
}

bool MergedResidency::RunSlice(absl::Duration budget) {
  if (job_ == nullptr && !Begin()) return false;
  const absl::Duration start = clock_.Now();
  absl::Duration now = start;
  absl::Status status;
  while (status.ok() && !job_->builder.done()) {
    status = job_->builder.RunPiece(*stream_);
    now = clock_.Now();
    if (now - start >= budget) break;
  }
  job_->worked += now - start;
  if (!status.ok() || job_->builder.done()) End(std::move(status));
  return true;
}

void MergedResidency::End(absl::Status status) {
  status.Update(stream_->Sync());
  if (status.ok()) return Publish();
  job_.reset();
  buffers_.Trim();
  if (absl::IsResourceExhausted(status) && !variants_.empty()) {
    // The wish waits for one of the places that there are.
    max_variants_ = variants_.size();
    Log(LogLevel::kWarning, "fewer adapters are merged at once",
        {{"places", absl::StrCat(max_variants_)},
         {"why", std::string(status.message())}});
    return;
  }
  last_failure_ = clock_.Now();
  failures_.emplace_back(std::move(wishes_.front().key), std::move(status));
  wishes_.pop_front();
}

void MergedResidency::Publish() {
  Wish wish = std::move(wishes_.front());
  wishes_.pop_front();
  last_merge_ = job_->worked;
  Variant& variant = variants_[wish.key];
  variant.weights = job_->builder.Take();
  variant.last_use = clock_.Now();
  ++num_made_;
  std::string names;
  for (const auto& [key, scale] : wish.key) {
    absl::StrAppend(&names, names.empty() ? "" : "+", key.ToString());
  }
  Log(LogLevel::kInfo, "adapter merged",
      {{"adapter", names},
       {"bytes",
        HumanBytes(static_cast<uint64_t>(variant.weights->size_bytes))},
       {"work", absl::FormatDuration(last_merge_)}});
  job_.reset();
}

std::vector<std::pair<MergeKey, absl::Status>> MergedResidency::TakeFailures() {
  return std::exchange(failures_, {});
}

int64_t MergedResidency::Drop(const std::string& tenant,
                              const std::string& name) {
  for (size_t i = wishes_.size(); i-- > 0;) {
    if (wishes_[i].is_needed || !Names(wishes_[i].key, tenant, name)) continue;
    if (i == 0) job_.reset();
    wishes_.erase(wishes_.begin() + static_cast<int64_t>(i));
  }
  std::erase_if(variants_, [&](const auto& v) {
    return Names(v.first, tenant, name) && v.second.weights.use_count() == 1;
  });
  return buffers_.Trim();
}

void MergedResidency::DropAll() {
  job_.reset();
  wishes_.clear();
  variants_.clear();
}

std::vector<MergedInfo> MergedResidency::List() const {
  std::vector<MergedInfo> list;
  for (const auto& [key, variant] : variants_) {
    MergedInfo info;
    info.adapters = key;
    info.state = MergedInfo::State::kMerged;
    info.bytes = info.bytes_total = variant.weights->size_bytes;
    info.requests = variant.weights.use_count() - 1;
    list.push_back(std::move(info));
  }
  for (const Wish& wish : wishes_) {
    MergedInfo info;
    info.adapters = wish.key;
    if (job_ != nullptr && &wish == &wishes_.front()) {
      info.state = MergedInfo::State::kMerging;
      info.bytes = job_->builder.bytes_done();
      info.bytes_total = job_->builder.bytes_total();
    }
    list.push_back(std::move(info));
  }
  return list;
}

}  // namespace lorikeet
