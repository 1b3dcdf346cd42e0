#include "kernels/lora_batch.h"

namespace lorikeet {
namespace {

int64_t BytesOf(const std::vector<float>& v) {
  return static_cast<int64_t>(v.size() * sizeof(float));
}

}  // namespace

int64_t LoraSlot::size_bytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries) {
    if (entry.weights != nullptr) bytes += entry.weights->size_bytes();
  }
  for (const auto& o : overrides) {
    if (o == nullptr) continue;
    if (o->weight != nullptr) bytes += o->weight->size_bytes();
    if (o->rows != nullptr) bytes += o->rows->size_bytes();
    bytes += BytesOf(o->bias) + BytesOf(o->gain);
  }
  for (const std::vector<float>& norm : norms) bytes += BytesOf(norm);
  return bytes;
}

std::vector<RowRange<LoraSlot::Override>> SplitRows(const LoraBatch& lora,
                                                    LinearId id, int64_t rows) {
  return SplitRows<LoraSlot::Override>(
      lora, rows, [id](const LoraSlot& slot) { return slot.FindOverride(id); });
}

std::vector<RowRange<float>> SplitRows(const LoraBatch& lora, NormId id,
                                       int64_t rows) {
  return SplitRows<float>(
      lora, rows, [id](const LoraSlot& slot) { return slot.FindNorm(id); });
}

}  // namespace lorikeet
