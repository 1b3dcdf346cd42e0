// An AdapterCatalogue is the registry in memory: adapters with their versions,
// and aliases, so that resolving a name never touches the disk.
//
// Thread-compatible: the store's mutex guards it. Versions themselves are
// shared and never change.

#ifndef LORIKEET_ADAPTERS_ADAPTER_CATALOGUE_H_
#define LORIKEET_ADAPTERS_ADAPTER_CATALOGUE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_info.h"
#include "adapters/registry.h"

namespace lorikeet {

class AdapterCatalogue {
 public:
  // Tenant and name; orders listings.
  using NameKey = std::pair<std::string, std::string>;

  // One version in memory. `info` never changes.
  struct Version {
    AdapterVersionInfo info;
    // Requests that hold it; the device pool looks at it too.
    std::shared_ptr<std::atomic<int64_t>> users =
        std::make_shared<std::atomic<int64_t>>(0);
  };

  // Counts one request for as long as it lives.
  struct Hold {
    explicit Hold(std::shared_ptr<const Version> v) : version(std::move(v)) {
      version->users->fetch_add(1);
    }
    ~Hold() { version->users->fetch_sub(1); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    const std::shared_ptr<const Version> version;
  };

  struct Entry {
    Registry::Adapter row;
    std::vector<std::shared_ptr<const Version>>
        versions;  // ascending, not empty
    bool is_draining = false;
    std::string drain_actor;  // who began the deletion
    // Numbers of versions that are about to go: no request gets them.
    absl::flat_hash_set<uint32_t> retiring;
    std::optional<absl::Time> last_used;

    const Version& newest() const { return *versions.back(); }
    int64_t users() const {
      int64_t sum = 0;
      for (const auto& version : versions) sum += version->users->load();
      return sum;
    }
  };

  // Fills the catalogue. Errors: DATA_LOSS (reason REGISTRY_DAMAGED) if an
  // adapter has no version.
  absl::Status Load(Registry::Contents contents);

  // Errors: NOT_FOUND.
  absl::StatusOr<Entry*> Find(const std::string& tenant,
                              const std::string& name);
  // Returns the version of `entry` that `ref` means, else its newest. Errors:
  // NOT_FOUND; INVALID_ARGUMENT if a digest is ambiguous.
  absl::StatusOr<std::shared_ptr<const Version>> FindVersion(
      const Entry& entry, const AdapterRef& ref) const;
  // Returns the version of that key, or null.
  std::shared_ptr<const Version> FindKey(const AdapterKey& key) const;
  // True if an alias has the version as target, shadow or previous.
  bool IsAliased(const AdapterKey& key) const;
  // Takes an adapter's versions out of all aliases; those left without a target
  // go.
  void RemoveFromAliases(const std::string& tenant, const std::string& name);
  // The digests of all versions.
  absl::flat_hash_set<Digest> Digests() const;
  bool HasDigest(const Digest& digest) const;

  std::map<NameKey, Entry> entries;
  std::map<NameKey, Alias> aliases;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_CATALOGUE_H_
