#include "server/engine/step_cost_probe.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/status.h"

namespace lorikeet {
namespace {

// Several times a last-level cache.
constexpr int64_t kColdBytes = int64_t{128} << 20;
// Of which the fastest counts: others were disturbed.
constexpr int kPasses = 3;
// Beyond this many rows a pass computes, and time is proportional.
constexpr int64_t kMaxRows = 64;
// The adapter that low-rank parts are timed with.
constexpr int64_t kRank = 16;
constexpr int64_t kLoraRows = 8;
// A merge reads and writes the weights and computes between; the first real one
// corrects this.
constexpr double kMergePasses = 4;

// The linears that share an input, as the forward pass calls them.
struct Group {
  std::array<Projection, 3> parts;
  size_t count;
};
constexpr Group kGroups[] = {
    {{Projection::kQ, Projection::kK, Projection::kV}, 3},
    {{Projection::kO}, 1},
    {{Projection::kGate, Projection::kUp}, 2},
    {{Projection::kDown}, 1}};

int64_t LayerBytes(const BaseWeights& base) {
  int64_t bytes = 0;
  for (int p = 0; p < kNumProjections; ++p) {
    bytes += base.weight({0, static_cast<Projection>(p)}).size_bytes();
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<LoraSlot>> ZeroAdapter(const BaseWeights& base,
                                                      Ops& ops,
                                                      int64_t layers) {
  auto slot = std::make_unique<LoraSlot>();
  const Model& model = base.model();
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (int p = 0; p < kNumProjections; ++p) {
      const LinearId id{layer, static_cast<Projection>(p)};
      const int64_t in = model.in_dim(id.projection);
      const int64_t out = model.out_dim(id.projection);
      const Buffer zeros(kRank * std::max(in, out) * SizeBytes(DType::kBF16));
      slot->entries.resize(static_cast<size_t>(id.index()) + 1);
      LoraSlot::Entry& entry = slot->entries.back();
      entry.weights = ops.PackLora(
          ConstTensor(zeros.data(), DType::kBF16, kRank, in, in),
          ConstTensor(zeros.data(), DType::kBF16, out, kRank, kRank));
      if (entry.weights == nullptr) {
        return absl::ResourceExhaustedError(
            "the device has no memory for an adapter to measure with");
      }
      entry.scaling = 1;
    }
  }
  return slot;
}

absl::StatusOr<std::unique_ptr<Memory>> ZeroMatrix(Ops& ops, int64_t rows,
                                                   int64_t cols,
                                                   Stream& stream) {
  const int64_t size_bytes = rows * cols * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(std::unique_ptr<Memory> memory, ops.Allocate(size_bytes));
  const std::string zeros(static_cast<size_t>(size_bytes), '\0');
  ops.CopyIn(zeros.data(), memory->data(), size_bytes, stream);
  return memory;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StepCostProbe>> StepCostProbe::Create(
    const BaseWeights& base, Ops& ops, const Clock& clock, int64_t max_rows) {
  std::unique_ptr<StepCostProbe> probe(
      new StepCostProbe(base, ops, clock, max_rows));
  RETURN_IF_ERROR(probe->Allocate());
  return probe;
}

StepCostProbe::StepCostProbe(const BaseWeights& base, Ops& ops,
                             const Clock& clock, int64_t max_rows)
    : base_(base),
      ops_(ops),
      clock_(clock),
      max_rows_(std::min(std::max(max_rows, kLoraRows), kMaxRows)),
      stream_(ops.NewStream()) {}

StepCostProbe::~StepCostProbe() = default;

absl::Status StepCostProbe::Allocate() {
  const Model& model = base_.model();
  layers_ = std::clamp<int64_t>(kColdBytes / LayerBytes(base_) + 1, 1,
                                model.config().num_layers);
  ASSIGN_OR_RETURN(slot_, ZeroAdapter(base_, ops_, layers_));
  int64_t in = 0, out = 0;
  for (const Group& group : kGroups) {
    in = std::max(in, model.in_dim(group.parts[0]));
    int64_t width = 0;
    for (size_t i = 0; i < group.count; ++i) {
      width += model.out_dim(group.parts[i]);
    }
    out = std::max(out, width);
  }
  ASSIGN_OR_RETURN(in_, ZeroMatrix(ops_, max_rows_, in, *stream_));
  ASSIGN_OR_RETURN(out_, ZeroMatrix(ops_, max_rows_, out, *stream_));
  return stream_->Sync();
}

LoraBatch StepCostProbe::OneSegment(int64_t rows) const {
  LoraBatch lora;
  lora.segments = {{0, static_cast<int32_t>(rows), {{slot_.get(), 1}}}};
  return lora;
}

void StepCostProbe::RunLayers(int64_t rows, const LoraBatch& lora) {
  for (int32_t layer = 0; layer < layers_; ++layer) {
    for (const Group& group : kGroups) {
      std::array<LinearPart, 3> parts;
      int64_t width = 0;
      for (size_t i = 0; i < group.count; ++i) {
        const LinearId id{layer, group.parts[i]};
        parts[i] = {id, &base_.weight(id)};
        width += parts[i].weight->out_dim();
      }
      const int64_t in = parts[0].weight->in_dim();
      ops_.LinearGroup(
          Tensor::F32(static_cast<float*>(in_->data()), rows, in),
          std::span(parts).first(group.count), lora, Epilogue(),
          Tensor::F32(static_cast<float*>(out_->data()), rows, width),
          *stream_);
    }
  }
}

absl::StatusOr<double> StepCostProbe::TimePasses(int64_t rows,
                                                 const LoraBatch& lora) {
  absl::Duration best = absl::InfiniteDuration();
  for (int pass = 0; pass < kPasses; ++pass) {
    const absl::Duration start = clock_.Now();
    RunLayers(rows, lora);
    RETURN_IF_ERROR(stream_->Sync());
    best = std::min(best, clock_.Now() - start);
  }
  return absl::ToDoubleSeconds(best) *
         static_cast<double>(base_.model().config().num_layers) /
         static_cast<double>(layers_);
}

// What a low-rank part adds, per byte of it.
absl::StatusOr<double> StepCostProbe::TimeLora(int64_t rows) {
  ASSIGN_OR_RETURN(const double seconds, TimePasses(rows, OneSegment(rows)));
  const double bytes = static_cast<double>(slot_->size_bytes()) *
                       static_cast<double>(base_.model().config().num_layers) /
                       static_cast<double>(layers_);
  const double without = costs_.Linears(static_cast<double>(rows));
  return std::max(0.0, seconds - without) / bytes;
}

absl::StatusOr<std::optional<StepCosts>> StepCostProbe::RunPiece() {
  if (next_rows_ <= max_rows_) {
    ASSIGN_OR_RETURN(const double seconds, TimePasses(next_rows_, {}));
    costs_.passes.push_back({next_rows_, seconds});
    next_rows_ *= 2;
    return std::nullopt;
  }
  // seconds = bytes * (per_byte + rows * per_byte_and_row), at two points.
  ASSIGN_OR_RETURN(const double one, TimeLora(1));
  ASSIGN_OR_RETURN(const double many, TimeLora(kLoraRows));
  costs_.lora_per_byte_and_row =
      std::max(0.0, many - one) / static_cast<double>(kLoraRows - 1);
  costs_.lora_per_byte = std::max(0.0, one - costs_.lora_per_byte_and_row);
  costs_.merge = kMergePasses * costs_.Linears(1);
  return costs_;
}

}  // namespace lorikeet
