// Content: what the loader reads, and what happens to files that changed since
// they were verified. They are moved aside, named, and never served; the other
// adapters do not notice. Registering the same files again repairs the version.

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Codes of a file that is not what it was, as against a disk that is slow to
// answer or full.
bool IsDamage(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::StatusOr<HostCache::Weights> AdapterStoreImpl::ReadVersion(
    const AdapterKey& key) {
  {
    MutexLock lock(&mu_);
    const auto trial = trials_.find(key);
    if (trial != trials_.end()) return trial->second.weights;
  }
  absl::StatusOr<HostCache::Weights> weights =
      ReadPeftAdapter(fs_, content_->Path(key.digest), base_.config,
                      options_.limits, options_.dtype, base_weights());
  if (!weights.ok()) {
    return IsDamage(weights.status()) ? Quarantine(key, weights.status())
                                      : weights.status();
  }
  if ((*weights)->digest == key.digest) return weights;
  return Quarantine(key,
                    absl::DataLossError(absl::StrCat(
                        "they have digest ", (*weights)->digest.ToShortHex(),
                        ", expected ", key.digest.ToShortHex())));
}

absl::Status AdapterStoreImpl::Quarantine(const AdapterKey& key,
                                          const absl::Status& damage) {
  const absl::StatusOr<ContentStore::Verdict> verdict =
      content_->Quarantine(key.digest);
  RETURN_IF_ERROR(verdict.status());
  // The bytes are right: this program does not understand them any more.
  if (*verdict == ContentStore::Verdict::kSound) return damage;
  const std::string place = absl::StrCat("quarantine/", key.digest.ToHex());
  if (*verdict == ContentStore::Verdict::kMoved) {
    AuditEntry audit = MakeAudit(std::string(kServerActor), "quarantine",
                                 key.tenant, key.name);
    audit.old_target = absl::StrCat(key.name, "@", key.version);
    audit.reason = std::string(damage.message());
    const absl::Status status = registry_->AppendAudit(audit);
    Log(LogLevel::kError, "damaged adapter files are quarantined",
        {{"adapter", key.ToString()},
         {"files", place},
         {"error", std::string(damage.message())},
         {"audit", status.ok() ? "written" : std::string(status.message())}});
  }
  return WithReason(absl::DataLossError(absl::StrCat(
                        "stored files of adapter ", key.ToString(),
                        " were damaged (", damage.message(), ") and are in ",
                        place, ": register the same files again")),
                    "ADAPTER_DAMAGED");
}

}  // namespace lorikeet
