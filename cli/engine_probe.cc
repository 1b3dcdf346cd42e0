#include "cli/engine_probe.h"

#include <algorithm>
#include <numeric>

#include "adapters/adapter_weights.h"
#include "base/random.h"

namespace lorikeet {
namespace {

// Neighbours with the same adapter share a segment, as in the server.
void AddSegment(int s, int rows, const std::vector<const LoraSlot*>& slots,
                LoraBatch* lora) {
  const LoraSlot* slot = slots[static_cast<size_t>(s) % slots.size()];
  if (!lora->segments.empty() && lora->segments.back().terms[0].slot == slot) {
    lora->segments.back().row_end = (s + 1) * rows;
    return;
  }
  lora->segments.push_back({s * rows, (s + 1) * rows, {{slot, 1.0f}}});
}

}  // namespace

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double Spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t cut = values.size() / 10 + (values.size() >= 5 ? 1 : 0);
  if (values.size() < 2 * cut + 2) return 0;
  return (values[values.size() - 1 - cut] - values[cut]) / Median(values);
}

// An adapter of random weights on all seven projections of every layer.
std::shared_ptr<const LoraSlot> RandomAdapter(const Model& model, Ops& ops,
                                              int rank, DType dtype,
                                              uint64_t seed) {
  const DType stored = dtype == DType::kI8 ? DType::kBF16 : dtype;
  Rng rng(seed);
  AdapterWeights weights;
  for (int32_t layer = 0; layer < model.config().num_layers; ++layer) {
    for (int p = 0; p < kNumProjections; ++p) {
      const auto projection = static_cast<Projection>(p);
      const int64_t in = model.in_dim(projection);
      const int64_t out = model.out_dim(projection);
      Buffer a(rank * in * SizeBytes(stored));
      Buffer b(out * rank * SizeBytes(stored));
      const auto fill = [&](Buffer& buffer, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          const float v = static_cast<float>(rng.Uniform() - 0.5) * 0.02f;
          StoreElement(stored, buffer.data(), i, v);
        }
      };
      fill(a, rank * in);
      fill(b, out * rank);
      LoraModule module;
      module.id = {layer, projection};
      module.rank = rank;
      module.scaling = 2;
      module.packs_int8 = dtype == DType::kI8;
      module.a = ConstTensor(a.data(), stored, rank, in, in);
      module.b = ConstTensor(b.data(), stored, out, rank, rank);
      weights.modules.push_back(std::move(module));
      weights.storage.push_back(std::move(a));
      weights.storage.push_back(std::move(b));
    }
  }
  return *weights.Pack(ops);  // plain LoRA cannot fail
}

StepRunner::StepRunner(const Model& model, Ops& ops, KvPool& pool)
    : model_(model),
      ops_(ops),
      forward_(model, ops, pool),
      stream_(ops.NewStream()) {}

void StepRunner::Run(int sequences, int rows, int position,
                     const std::vector<const LoraSlot*>& slots) {
  const size_t count = static_cast<size_t>(sequences * rows);
  std::vector<Token> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<Token>(
        (i * 7919 + 13) % static_cast<size_t>(model_.config().vocab_size));
  }
  const int blocks =
      static_cast<int>((position + rows + kKvBlockSize - 1) / kKvBlockSize);
  std::vector<std::vector<int32_t>> tables(static_cast<size_t>(sequences));
  std::vector<SequenceRows> parts;
  std::vector<int32_t> logit_rows;
  ForwardBatch batch;
  for (int s = 0; s < sequences; ++s) {
    auto& table = tables[static_cast<size_t>(s)];
    table.resize(static_cast<size_t>(blocks));
    std::iota(table.begin(), table.end(), s * blocks);
    parts.push_back({s * rows, (s + 1) * rows, position, table});
    logit_rows.push_back((s + 1) * rows - 1);
    if (!slots.empty()) AddSegment(s, rows, slots, &batch.lora);
  }
  batch.tokens = tokens;
  batch.sequences = parts;
  batch.logit_rows = logit_rows;
  const Tensor logits = forward_.Run(batch, *stream_);
  params_.resize(static_cast<size_t>(sequences));
  sampled_.resize(static_cast<size_t>(sequences));
  ops_.Sample(logits, params_, sampled_, *stream_);
}

int64_t BlocksFor(int64_t sequences, int64_t tokens) {
  return sequences * ((tokens + kKvBlockSize - 1) / kKvBlockSize + 1);
}

// Weight bytes that one decode step reads: all but the embedding rows, which
// are read only through the (possibly tied) lm_head.
double StepWeightBytes(const Model& model) {
  int64_t bytes = model.weight_bytes();
  if (!model.config().tie_word_embeddings) {
    bytes -= model.embedding().size_bytes();
  }
  return static_cast<double>(bytes);
}

double LinearFlopsPerToken(const Model& model) {
  const ModelConfig& c = model.config();
  double weights = 0;
  for (int p = 0; p < kNumProjections; ++p) {
    weights += static_cast<double>(model.in_dim(static_cast<Projection>(p))) *
               static_cast<double>(model.out_dim(static_cast<Projection>(p)));
  }
  return 2 * weights * static_cast<double>(c.num_layers);
}

}  // namespace lorikeet
