#include "model/resident_vectors.h"

#include <functional>

#include "base/status.h"

namespace lorikeet {
namespace {

constexpr size_t kAlignment = 4;  // floats: 16 bytes

using Visit = std::function<void(const std::vector<float>&, const float**)>;

void ForEachVector(const LayerWeights& from, ResidentVectors::Layer* to,
                   const Visit& visit) {
  for (size_t p = 0; p < kNumProjections; ++p) {
    visit(from.biases[p], &to->biases[p]);
  }
  visit(from.input_norm, &to->input_norm);
  visit(from.post_norm, &to->post_norm);
  visit(from.q_norm, &to->q_norm);
  visit(from.k_norm, &to->k_norm);
}

}  // namespace

absl::StatusOr<ResidentVectors> ResidentVectors::Create(const Model& model,
                                                        Ops& ops) {
  ResidentVectors resident;
  const int64_t num_layers = model.config().num_layers;
  resident.layers_.resize(static_cast<size_t>(num_layers));
  std::vector<float> all;  // one after the other, for a device
  const auto for_all = [&](const Visit& visit) {
    for (int64_t i = 0; i < num_layers; ++i) {
      ForEachVector(model.layer(i), &resident.layers_[static_cast<size_t>(i)],
                    visit);
    }
    visit(model.final_norm(), &resident.final_norm_);
  };
  for_all([&](const std::vector<float>& from, const float** to) {
    *to = from.empty() ? nullptr : from.data();
    all.insert(all.end(), from.begin(), from.end());
    all.resize((all.size() + kAlignment - 1) / kAlignment * kAlignment);
  });
  if (ops.is_on_host()) return resident;
  const int64_t size_bytes = static_cast<int64_t>(all.size() * sizeof(float));
  ASSIGN_OR_RETURN(resident.memory_, ops.Allocate(size_bytes));
  const std::unique_ptr<Stream> stream = ops.NewStream();
  ops.CopyIn(all.data(), resident.memory_->data(), size_bytes, *stream);
  RETURN_IF_ERROR(stream->Sync());
  const float* next = static_cast<const float*>(resident.memory_->data());
  for_all([&](const std::vector<float>& from, const float** to) {
    if (!from.empty()) *to = next;
    next += (from.size() + kAlignment - 1) / kAlignment * kAlignment;
  });
  return resident;
}

}  // namespace lorikeet
