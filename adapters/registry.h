// A Registry is the durable catalogue of adapters: versions, aliases, labels.
//
// Every mutation is one transaction (SQLite, WAL, synchronous=FULL) and durable
// when the call returns; a crash leaves the state before or after it, never
// between. The bytes of an adapter are in place before its version is.
// docs/formats/registry.md has the schema.
//
// Thread-safe. Calls block on disk: not for the engine thread.

#ifndef LORIKEET_ADAPTERS_REGISTRY_H_
#define LORIKEET_ADAPTERS_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"

namespace lorikeet {

class Registry {
 public:
  // One row of each table.
  struct Adapter {
    std::string tenant, name;
    std::string uid;
    std::string display_name;
    std::string source_path;
    std::vector<std::pair<std::string, std::string>> labels;
    bool pinned = false;
    uint64_t etag = 0;
    absl::Time create_time, update_time;
  };
  struct Alias {
    std::string tenant, name;
    std::string target;
    uint32_t version = 0;
    uint64_t etag = 0;
  };
  struct Contents {
    std::vector<Adapter> adapters;
    std::vector<AdapterVersionInfo> versions;  // ascending per adapter
    std::vector<Alias> aliases;
  };

  // The schema that this program writes; files of older ones are migrated.
  static constexpr int kSchemaVersion = 2;

  // Opens or creates the file `path`.
  //
  // Errors: DATA_LOSS (reason REGISTRY_DAMAGED); FAILED_PRECONDITION (reason
  // REGISTRY_NEWER) if it was written by a newer version of the program;
  // RESOURCE_EXHAUSTED (reason DISK_FULL).
  static absl::StatusOr<std::unique_ptr<Registry>> Open(
      const std::string& path);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  absl::StatusOr<Contents> ReadAll();

  // Mutations set and return the new etag; no etag is ever used twice.
  //
  // Errors of all: RESOURCE_EXHAUSTED (reason DISK_FULL), INTERNAL; nothing is
  // changed then.

  // Adds an adapter with its first version. Errors: ALREADY_EXISTS if an
  // adapter or alias has the name.
  absl::StatusOr<uint64_t> CreateAdapter(const Adapter& adapter,
                                         const AdapterVersionInfo& version);
  // Adds a version and changes the adapter's row. Errors: ALREADY_EXISTS if the
  // number is taken; NOT_FOUND.
  absl::StatusOr<uint64_t> AddVersion(const Adapter& adapter,
                                      const AdapterVersionInfo& version);
  // Errors: NOT_FOUND.
  absl::StatusOr<uint64_t> UpdateAdapter(const Adapter& adapter);
  // Removes the adapter, its versions and the aliases to them.
  absl::Status DeleteAdapter(const std::string& tenant,
                             const std::string& name);
  // Creates or moves an alias. Errors: ALREADY_EXISTS if an adapter has the
  // name; NOT_FOUND if there is no such version.
  absl::StatusOr<uint64_t> PutAlias(const Alias& alias);
  absl::Status DeleteAlias(const std::string& tenant, const std::string& name);

 private:
  class Database;
  explicit Registry(std::unique_ptr<Database> database);

  const std::unique_ptr<Database> database_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_REGISTRY_H_
