// An AdapterResidency is which adapters the step being planned can use: those
// it has leased. Leases of adapters that run are kept from step to step, so an
// adapter in use is never freed.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_ADAPTER_RESIDENCY_H_
#define LORIKEET_SERVER_ENGINE_ADAPTER_RESIDENCY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "adapters/adapter_store.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

class AdapterResidency final : public ResidencyView {
 public:
  // `store` must outlive this.
  explicit AdapterResidency(AdapterStore& store);

  // Begins a step: `in_use` are the adapters of running sequences.
  void Begin(std::span<const AdapterKey> in_use);
  // True if the adapter is leased or a lease could be taken now; then it is.
  bool IsResident(const AdapterKey& key) const override;
  // Counts slots only: how large an adapter is on the device is not known
  // before it has been there.
  bool HasRoomFor(std::span<const AdapterKey> keys) const override;
  // True if a lease is held.
  bool IsLeased(const AdapterKey& key) const { return leases_.contains(key); }
  // Returns the weights. REQUIRES: IsLeased(key).
  const LoraSlot* SlotOf(const AdapterKey& key) const;

  // Ends planning: drops the leases of all but `in_use` and those of `wanted`
  // before the first that is missing, then asks for the most urgent of `wanted`
  // that fit beside those, and hints at the others.
  // Returns the ones that can not be loaded, each with its error.
  std::vector<std::pair<AdapterKey, absl::Status>> Finish(
      std::span<const AdapterKey> in_use, std::span<const AdapterKey> wanted);
  // Drops the lease of `key` unless it is in use.
  void DropUnused(const AdapterKey& key, std::span<const AdapterKey> in_use);
  void DropAll();

 private:
  AdapterStore& store_;
  const int64_t num_slots_;
  std::vector<AdapterKey> in_use_;  // by running sequences, in this step
  mutable absl::flat_hash_map<AdapterKey, DeviceLease> leases_;
  // Loads that this asked for and that have not been seen to end: an error of
  // one of these is news, an older one is not.
  absl::flat_hash_set<AdapterKey> asked_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_ADAPTER_RESIDENCY_H_
