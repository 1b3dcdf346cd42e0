#include "adapters/adapter_weights.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/dora.h"
#include "base/status.h"
#include "kernels/lora_int8.h"

namespace lorikeet {
namespace {

std::vector<float> ToVector(ConstTensor row) {
  return std::vector<float>(row.f32(0), row.f32(0) + row.cols);
}

absl::Status NoDeviceMemory(absl::string_view name) {
  return absl::ResourceExhaustedError(
      absl::StrCat(name, " does not fit into the device's memory"));
}

// Fills one slot.
class SlotPacker {
 public:
  SlotPacker(Ops& ops, const BaseWeights* base, LoraSlot* slot)
      : ops_(ops), base_(base), slot_(slot) {}

  absl::Status AddSaved(const SavedParameter& saved) {
    switch (saved.parameter.kind) {
      case BaseParameter::Kind::kWeight: {
        LoraSlot::Override& o = OverrideOf(saved.parameter.linear);
        o.weight = ops_.PackWeight(saved.values, saved.values.dtype);
        if (o.weight == nullptr) return NoDeviceMemory("modules_to_save");
        break;
      }
      case BaseParameter::Kind::kBias:
        OverrideOf(saved.parameter.linear).bias = ToVector(saved.values);
        break;
      case BaseParameter::Kind::kNorm:
        At(slot_->norms, saved.parameter.norm.index()) = ToVector(saved.values);
        break;
    }
    return absl::OkStatus();
  }

  // After AddSaved: a bias of B is added to the bias there is.
  absl::Status AddModule(const LoraModule& module) {
    LoraSlot::Entry& entry = At(slot_->entries, module.id.index());
    entry.weights = PackModule(module, module.a, module.b, ops_);
    if (entry.weights == nullptr) return NoDeviceMemory(module.name);
    entry.scaling = static_cast<float>(module.scaling);
    if (base_ == nullptr &&
        (module.magnitude.data != nullptr || module.b_bias.data != nullptr)) {
      return absl::FailedPreconditionError(absl::StrCat(
          module.name, " needs the base's weights, which are not here"));
    }
    if (module.magnitude.data != nullptr) {
      ASSIGN_OR_RETURN(OverrideOf(module.id).gain,
                       DoraGain(module, *base_, ops_));
    }
    if (module.b_bias.data != nullptr) AddBias(module, entry.scaling);
    return absl::OkStatus();
  }

  absl::Status AddRows(const ReplacedRows& replaced) {
    std::vector<size_t> order(replaced.tokens.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, std::less<>(),
                      [&](size_t i) { return replaced.tokens[i]; });
    const ConstTensor& from = replaced.rows;
    const Buffer sorted(from.rows * from.cols * SizeBytes(from.dtype));
    LoraSlot::Override& o = OverrideOf(replaced.id);
    int64_t row = 0;
    for (const size_t i : order) {
      o.replaced.push_back(replaced.tokens[i]);
      const int64_t bytes = from.cols * SizeBytes(from.dtype);
      std::memcpy(
          sorted.data() + row++ * bytes,
          static_cast<const char*>(from.data) + static_cast<int64_t>(i) * bytes,
          static_cast<size_t>(bytes));
    }
    o.rows = ops_.PackWeight(
        ConstTensor(sorted.data(), from.dtype, from.rows, from.cols, from.cols),
        from.dtype);
    return o.rows == nullptr ? NoDeviceMemory("trainable_token_indices")
                             : absl::OkStatus();
  }

 private:
  template <typename T>
  static T& At(std::vector<T>& list, int32_t index) {
    const size_t i = static_cast<size_t>(index);
    if (list.size() <= i) list.resize(i + 1);
    return list[i];
  }

  LoraSlot::Override& OverrideOf(LinearId id) {
    auto& o = At(slot_->overrides, id.index());
    if (o == nullptr) o = std::make_unique<LoraSlot::Override>();
    return *o;
  }

  // y = W x + b + s (B A x + b_B): a new bias b + s b_B.
  void AddBias(const LoraModule& module, float scaling) {
    std::vector<float>& bias = OverrideOf(module.id).bias;
    if (bias.empty()) bias = base_->bias(module.id);
    bias.resize(static_cast<size_t>(module.b_bias.cols));
    for (size_t i = 0; i < bias.size(); ++i) {
      bias[i] += scaling * module.b_bias.f32(0)[i];
    }
  }

  Ops& ops_;
  const BaseWeights* const base_;
  LoraSlot* const slot_;
};

}  // namespace

std::unique_ptr<PackedLora> PackModule(const LoraModule& module, ConstTensor a,
                                       ConstTensor b, Ops& ops) {
  return module.packs_int8 ? ops.PackLoraInt8(a, b) : ops.PackLora(a, b);
}

int64_t AdapterWeights::device_bytes() const {
  int64_t bytes = size_bytes;
  for (const LoraModule& m : modules) {
    if (!m.packs_int8) continue;
    bytes += LoraInt8Bytes(m.rank, m.a.cols, m.b.rows) -
             m.a.rows * m.a.cols * SizeBytes(m.a.dtype) -
             m.b.rows * m.b.cols * SizeBytes(m.b.dtype);
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<const LoraSlot>> AdapterWeights::Pack(
    Ops& ops, const BaseWeights* base, uint32_t generation) const {
  auto slot = std::make_shared<LoraSlot>();
  slot->generation = generation;
  SlotPacker packer(ops, base, slot.get());
  for (const SavedParameter& parameter : saved) {
    RETURN_IF_ERROR(packer.AddSaved(parameter));
  }
  for (const LoraModule& module : modules) {
    RETURN_IF_ERROR(packer.AddModule(module));
  }
  for (const ReplacedRows& rows : replaced_rows) {
    RETURN_IF_ERROR(packer.AddRows(rows));
  }
  return std::shared_ptr<const LoraSlot>(std::move(slot));
}

}  // namespace lorikeet
