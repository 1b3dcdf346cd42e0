#include "adapters/adapter_catalogue.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "base/reason.h"
#include "base/text.h"

namespace lorikeet {

absl::Status AdapterCatalogue::Load(Registry::Contents contents) {
  for (Registry::Adapter& row : contents.adapters) {
    NameKey key(row.tenant, row.name);
    entries[std::move(key)].row = std::move(row);
  }
  for (AdapterVersionInfo& info : contents.versions) {
    Entry& entry = entries[NameKey(info.key.tenant, info.key.name)];
    auto version = std::make_shared<Version>();
    version->info = std::move(info);
    entry.versions.push_back(std::move(version));
  }
  for (Alias& alias : contents.aliases) {
    aliases[NameKey(alias.tenant, alias.name)] = std::move(alias);
  }
  for (const auto& [key, entry] : entries) {
    if (!entry.versions.empty()) continue;
    return WithReason(
        absl::DataLossError(absl::StrCat("registry: adapter ",
                                         DescribeName(key.first, key.second),
                                         " has no version")),
        "REGISTRY_DAMAGED");
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterCatalogue::Entry*> AdapterCatalogue::Find(
    const std::string& tenant, const std::string& name) {
  const auto it = entries.find(NameKey(tenant, name));
  if (it == entries.end()) return AdapterNotFound(tenant, name);
  return &it->second;
}

absl::StatusOr<std::shared_ptr<const AdapterCatalogue::Version>>
AdapterCatalogue::FindVersion(const Entry& entry, const AdapterRef& ref) const {
  if (!ref.version.has_value() && !ref.digest.has_value()) {
    return entry.versions.back();
  }
  std::shared_ptr<const Version> found;
  // The newest of those with equal content: the others were verified against
  // another base, or came back after a change.
  for (const auto& version : entry.versions) {
    const AdapterKey& key = version->info.key;
    if (entry.retiring.contains(key.version)) continue;
    const bool matches =
        ref.version.has_value()
            ? key.version == *ref.version
            : absl::StartsWith(key.digest.ToHex(), *ref.digest);
    if (!matches) continue;
    if (found != nullptr && found->info.key.digest != key.digest) {
      return WithReason(absl::InvalidArgumentError(absl::StrCat(
                            "digest ", Quote(*ref.digest), " of adapter ",
                            DescribeName(ref.tenant, ref.name),
                            " is ambiguous: give more digits")),
                        "INVALID_NAME");
    }
    found = version;
  }
  if (found != nullptr) return found;
  const std::string wanted = ref.version.has_value()
                                 ? absl::StrCat(*ref.version)
                                 : absl::StrCat("sha256:", *ref.digest);
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "adapter ", DescribeName(ref.tenant, ref.name),
                        " has no version ", wanted)),
                    "ADAPTER_NOT_FOUND");
}

std::shared_ptr<const AdapterCatalogue::Version> AdapterCatalogue::FindKey(
    const AdapterKey& key) const {
  const auto it = entries.find(NameKey(key.tenant, key.name));
  if (it == entries.end()) return nullptr;
  for (const auto& version : it->second.versions) {
    if (version->info.key == key) return version;
  }
  return nullptr;
}

bool AdapterCatalogue::IsAliased(const AdapterKey& key) const {
  const auto is_key = [&](const std::string& adapter, uint32_t version) {
    return adapter == key.name && version == key.version;
  };
  for (const auto& [name, alias] : aliases) {
    if (name.first != key.tenant) continue;
    if (alias.shadow && is_key(alias.shadow->adapter, alias.shadow->version))
      return true;
    if (alias.previous &&
        is_key(alias.previous->adapter, alias.previous->version)) {
      return true;
    }
    for (const AliasTarget& target : alias.targets) {
      if (is_key(target.adapter, target.version)) return true;
    }
  }
  return false;
}

void AdapterCatalogue::RemoveFromAliases(const std::string& tenant,
                                         const std::string& name) {
  const auto is_gone = [&](const std::string& adapter, uint32_t) {
    return adapter == name;
  };
  for (auto it = aliases.begin(); it != aliases.end();) {
    const bool stays =
        it->first.first != tenant || RemoveTargets(is_gone, &it->second);
    it = stays ? std::next(it) : aliases.erase(it);
  }
}

absl::flat_hash_set<Digest> AdapterCatalogue::Digests() const {
  absl::flat_hash_set<Digest> digests;
  for (const auto& [key, entry] : entries) {
    for (const auto& version : entry.versions) {
      digests.insert(version->info.key.digest);
    }
  }
  return digests;
}

bool AdapterCatalogue::HasDigest(const Digest& digest) const {
  for (const auto& [key, entry] : entries) {
    for (const auto& version : entry.versions) {
      if (version->info.key.digest == digest) return true;
    }
  }
  return false;
}

}  // namespace lorikeet
