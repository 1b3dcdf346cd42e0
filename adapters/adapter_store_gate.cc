// The gate: before a version is registered its own golden prompts are run with
// it. Until then it has a key that nobody can name, so that the engine can use
// it as any other and nobody else can.

#include "absl/strings/str_cat.h"
#include "adapters/adapter_metadata.h"
#include "adapters/adapter_store_impl.h"
#include "base/log.h"
#include "base/status.h"

namespace lorikeet {

absl::Status AdapterStoreImpl::RunGate(const RegisterRequest& r,
                                       const ContentStore::Staged& staged,
                                       const HostCache::Weights& weights) {
  const std::string path = JoinPath(staged.dir(), kGoldenFile);
  if (!r.gate || !fs_.FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string golden,
                   fs_.ReadFile(path, ContentStore::kMaxGoldenBytes));
  AdapterKey key;
  key.tenant = r.tenant;
  key.version = 0;  // those of registered ones count from 1
  key.digest = weights->digest;
  auto version = std::make_shared<Version>();
  {
    MutexLock lock(&mu_);
    // A name cannot have a space.
    key.name = absl::StrCat(r.name, " trial ", ++num_trials_);
    version->info = MakeVersionInfo(*weights, key, base_.fingerprint,
                                    staged.size_bytes(), Now());
    trials_[key] = {version, weights};
  }
  absl::Status status;
  {
    auto hold = std::make_shared<const Hold>(version);
    status = r.gate(VersionRef(hold, &hold->version->info), golden);
  }
  // What is still leased for a moment goes by eviction.
  const absl::Status unload = loader_->Unload(key, Tier::kDisk).status();
  if (!unload.ok()) {
    Log(LogLevel::kInfo, "memory of a tried adapter waits for its eviction",
        {{"adapter", r.name}});
  }
  MutexLock lock(&mu_);
  trials_.erase(key);
  return status;
}

}  // namespace lorikeet
