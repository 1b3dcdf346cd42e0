#include "adapters/adapter_weights.h"

#include <utility>

namespace lorikeet {

std::shared_ptr<const LoraSlot> AdapterWeights::Pack(
    Ops& ops, uint32_t generation) const {
  auto slot = std::make_shared<LoraSlot>();
  slot->generation = generation;
  if (!modules.empty()) {
    // Modules ascend, so the last one has the largest index.
    slot->entries.resize(static_cast<size_t>(modules.back().id.index()) + 1);
  }
  for (const LoraModule& module : modules) {
    LoraSlot::Entry& entry =
        slot->entries[static_cast<size_t>(module.id.index())];
    entry.weights = ops.PackLora(module.a, module.b);
    entry.scaling = static_cast<float>(module.scaling);
  }
  return slot;
}

}  // namespace lorikeet
