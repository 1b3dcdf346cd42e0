// A FakeAdapterStore has adapters that tests bring to the device by hand or,
// with load_on_prefetch, at once when asked. Only what the engine uses works.
//
// Thread-safe.

#ifndef LORIKEET_TESTS_SERVER_ENGINE_FAKE_ADAPTER_STORE_H_
#define LORIKEET_TESTS_SERVER_ENGINE_FAKE_ADAPTER_STORE_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/adapter_store.h"
#include "base/mutex.h"

namespace lorikeet::testing {

class FakeAdapterStore final : public AdapterStore {
 public:
  explicit FakeAdapterStore(int slots = 4) : slots_(slots) {}

  // Makes an adapter that requests can name; `slot` may hold no weights.
  VersionRef AddAdapter(
      const std::string& name,
      std::shared_ptr<const LoraSlot> slot = std::make_shared<LoraSlot>(),
      std::vector<Token> invocation = {}) {
    auto info = std::make_shared<AdapterVersionInfo>();
    info->features.invocation_tokens = std::move(invocation);
    info->key = {"default", name, 1, DigestOf(name)};
    MutexLock lock(&mu_);
    known_[info->key].slot = std::move(slot);
    return info;
  }
  void SetLoadOnPrefetch(bool load) {
    MutexLock lock(&mu_);
    load_on_prefetch_ = load;
  }
  // Puts `key` on the device, evicting what is unused longest.
  void Load(const AdapterKey& key) {
    {
      MutexLock lock(&mu_);
      LoadLocked(key);
    }
    RunCallback();
  }
  void FailLoad(const AdapterKey& key, absl::Status error) {
    {
      MutexLock lock(&mu_);
      known_.at(key).error = std::move(error);
    }
    RunCallback();
  }
  std::vector<std::string> prefetched() const {
    MutexLock lock(&mu_);
    return prefetched_;
  }
  int64_t num_leased() const {
    MutexLock lock(&mu_);
    return std::ranges::count_if(
        known_, [](const auto& k) { return *k.second.leases > 0; });
  }

  void Prefetch(const AdapterKey& key) override {
    {
      MutexLock lock(&mu_);
      if (std::ranges::find(prefetched_, key.name) == prefetched_.end()) {
        prefetched_.push_back(key.name);
      }
      if (!load_on_prefetch_) return;
      LoadLocked(key);
    }
    RunCallback();
  }
  void Hint(const AdapterKey& key) override {
    MutexLock lock(&mu_);
    if (std::ranges::find(hinted_, key.name) == hinted_.end()) {
      hinted_.push_back(key.name);
    }
  }
  std::vector<std::string> hinted() const {
    MutexLock lock(&mu_);
    return hinted_;
  }
  DeviceLease TryLease(const AdapterKey& key) override {
    MutexLock lock(&mu_);
    Known& known = known_.at(key);
    if (!known.on_device) return DeviceLease();
    known.last_use = ++uses_;
    ++*known.leases;
    return DeviceLease(
        known.slot, std::shared_ptr<void>(nullptr, [leases = known.leases](
                                                       void*) { --*leases; }));
  }
  absl::Status LoadError(const AdapterKey& key) override {
    MutexLock lock(&mu_);
    return known_.at(key).error;
  }
  void SetLoadedCallback(std::function<void()> callback) override {
    MutexLock lock(&mu_);
    callback_ = std::move(callback);
  }
  Residency GetResidency() override {
    Residency r;
    r.device_slots = slots_;
    return r;
  }

  absl::StatusOr<AdapterInfo> Register(const RegisterRequest&) override {
    return Unused();
  }
  absl::StatusOr<std::string> NewUploadDir() override { return Unused(); }
  void RemoveUpload(const std::string&) override {}
  absl::StatusOr<AdapterInfo> Get(const std::string&,
                                  const std::string&) override {
    return Unused();
  }
  AdapterPage ListPage(const std::string&, const std::string&,
                       int64_t) override {
    return {};
  }
  absl::StatusOr<std::vector<AdapterVersionInfo>> ListVersions(
      const std::string&, const std::string&) override {
    return Unused();
  }
  absl::StatusOr<AdapterInfo> UpdateMetadata(
      const std::string&, const std::string&, std::optional<std::string>,
      std::optional<std::vector<std::pair<std::string, std::string>>>,
      std::optional<uint64_t>) override {
    return Unused();
  }
  absl::Status BeginDelete(const std::string&, const std::string&,
                           const Change&) override {
    return Unused();
  }
  void CancelDelete(const std::string&, const std::string&) override {}
  absl::Status FinishDelete(const std::string&, const std::string&) override {
    return Unused();
  }
  absl::StatusOr<AliasInfo> PutAlias(const AliasRequest&) override {
    return Unused();
  }
  absl::StatusOr<AliasInfo> PromoteAlias(const std::string&, const std::string&,
                                         const std::optional<AdapterRef>&,
                                         const Change&) override {
    return Unused();
  }
  absl::StatusOr<AliasInfo> RollBackAlias(const std::string&,
                                          const std::string&,
                                          const Change&) override {
    return Unused();
  }
  absl::StatusOr<AliasInfo> GetAlias(const std::string&,
                                     const std::string&) override {
    return Unused();
  }
  std::vector<AliasInfo> ListAliases(const std::string&) override { return {}; }
  absl::Status DeleteAlias(const std::string&, const std::string&,
                           const Change&) override {
    return Unused();
  }
  absl::StatusOr<std::vector<AuditEntry>> ReadAudit(
      const AuditQuery&) override {
    return Unused();
  }
  absl::StatusOr<Route> FindRoute(const AdapterRef&,
                                  absl::string_view) override {
    return Unused();
  }
  absl::Status LoadTo(const std::string&, const std::string&, Tier,
                      std::optional<bool>, absl::Duration) override {
    return Unused();
  }
  absl::StatusOr<int64_t> UnloadTo(const std::string&, const std::string&,
                                   Tier) override {
    return Unused();
  }
  absl::StatusOr<AdapterInfo> SetPinned(const std::string&, const std::string&,
                                        bool) override {
    return Unused();
  }
  absl::StatusOr<AdapterInfo> SetMergePolicy(
      const std::string&, const std::string&,
      std::optional<MergePolicy>) override {
    return Unused();
  }
  absl::StatusOr<std::vector<AdapterEvent>> WaitForEvents(
      uint64_t, absl::Duration) override {
    return Unused();
  }
  uint64_t last_event() override { return 0; }

 private:
  struct Known {
    std::shared_ptr<const LoraSlot> slot;
    std::shared_ptr<std::atomic<int64_t>> leases =
        std::make_shared<std::atomic<int64_t>>(0);
    bool on_device = false;
    uint64_t last_use = 0;
    absl::Status error;
  };

  static absl::Status Unused() {
    return absl::UnimplementedError("not part of the fake");
  }
  void LoadLocked(const AdapterKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (known_.at(key).on_device) return;
    Known* victim = nullptr;
    int on_device = 0;
    for (auto& [other, known] : known_) {
      if (!known.on_device) continue;
      ++on_device;
      if (*known.leases == 0 &&
          (victim == nullptr || known.last_use < victim->last_use)) {
        victim = &known;
      }
    }
    if (on_device == slots_) {
      if (victim == nullptr) return;
      victim->on_device = false;
    }
    known_.at(key).on_device = true;
    known_.at(key).last_use = ++uses_;
  }
  void RunCallback() {
    std::function<void()> callback;
    {
      MutexLock lock(&mu_);
      callback = callback_;
    }
    if (callback) callback();
  }

  const int slots_;
  mutable Mutex mu_;
  std::map<AdapterKey, Known> known_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> prefetched_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> hinted_ ABSL_GUARDED_BY(mu_);
  bool load_on_prefetch_ ABSL_GUARDED_BY(mu_) = true;
  uint64_t uses_ ABSL_GUARDED_BY(mu_) = 0;
  std::function<void()> callback_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_SERVER_ENGINE_FAKE_ADAPTER_STORE_H_
