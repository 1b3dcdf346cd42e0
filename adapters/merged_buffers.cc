#include "adapters/merged_buffers.h"

#include <utility>

namespace lorikeet {

MergedBuffers::MergedBuffers(Ops& ops)
    : ops_(ops), free_(std::make_shared<Free>()) {}

std::shared_ptr<PackedWeight> MergedBuffers::Take(const PackedWeight& like) {
  const Shape shape(like.out_dim(), like.in_dim(), like.dtype());
  std::unique_ptr<PackedWeight> weight;
  {
    MutexLock lock(&free_->mu);
    auto& weights = free_->weights[shape];
    if (!weights.empty()) {
      weight = std::move(weights.back());
      weights.pop_back();
    }
  }
  if (weight == nullptr) {
    weight = ops_.NewWeight(like.out_dim(), like.in_dim(), like.dtype());
  }
  if (weight == nullptr) return nullptr;
  return std::shared_ptr<PackedWeight>(
      weight.release(), [free = free_, shape](PackedWeight* returned) {
        MutexLock lock(&free->mu);
        free->weights[shape].emplace_back(returned);
      });
}

int64_t MergedBuffers::Trim() {
  std::map<Shape, std::vector<std::unique_ptr<PackedWeight>>> freed;
  {
    MutexLock lock(&free_->mu);
    freed.swap(free_->weights);
  }
  int64_t bytes = 0;
  for (const auto& [shape, weights] : freed) {
    for (const auto& weight : weights) bytes += weight->size_bytes();
  }
  return bytes;
}

}  // namespace lorikeet
