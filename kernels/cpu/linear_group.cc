// The fused group of linears. Two or three parallel regions:
//   1  LoRA shrink of all parts, only if a segment adapts one of them
//   2  panels of all parts: GEMM, bias, LoRA expand and, where it concerns a
//      row's columns alone, the epilogue (silu * mul, residual) in cache
//   3  what needs whole rows: RMSNorm; head norms, RoPE and the KV append;
//      replaced rows of a weight
// Rows are taken in blocks so that a tile of results stays in cache; weights of
// a task stay in L2 between the blocks. Where adapters have a weight, a bias or
// a gain of their own, a block is cut at the rows where these change.

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {
namespace {

// A multiple of every target's tallest register tile.
constexpr int64_t kBlockRows = 48;
// Panels of a task: enough for a few rows to have many chains in flight.
constexpr int64_t kMaxTaskPanels = 4;
constexpr int64_t kTileStride = 2 * kMaxTaskPanels * kGroup;

const PackedWeight* WeightOf(const LinearPart& part,
                             const LoraSlot::Override* o) {
  return o != nullptr && o->weight != nullptr ? o->weight.get() : part.weight;
}

// The weights of a head norm for row `i`, null = there is no such norm.
const float* NormOfRow(const std::vector<RowRange<float>>& norms,
                       const float* base, int64_t i) {
  for (const RowRange<float>& range : norms) {
    if (i < range.row_end) return range.value != nullptr ? range.value : base;
  }
  return base;
}

}  // namespace

struct CpuOps::GroupOutput {
  Epilogue::Kind kind = Epilogue::Kind::kStore;
  Tensor y[3];  // per part; kStore with more parts uses `out` and widths
  Tensor out;
};

// Cuts the panels of all parts (pairs of them if `paired`) into tasks: large
// ones if there are many, so that each thread still gets several.
void CpuOps::PlanPanels(std::span<const LinearPart> parts, bool paired,
                        int64_t rows) {
  panel_tasks_.clear();
  const size_t planned = paired ? 1 : parts.size();
  int64_t total = 0;
  for (size_t i = 0; i < planned; ++i) {
    total += GroupsOf(parts[i].weight->out_dim());
  }
  // A tile of one row takes as long for one panel as for four: tasks are as
  // near to four as the panels of a thread divide. More rows: several tasks a
  // thread, so that who is slow can be helped.
  const int64_t most = paired || rows > 1 ? kMaxTaskPanels / 2 : kMaxTaskPanels;
  const int64_t threads = pool_.num_threads();
  int64_t size = std::clamp<int64_t>(total / (8 * threads), 1, most);
  if (rows == 1) {
    const int64_t share = (total + threads - 1) / threads;
    const int64_t tasks = (share + most - 1) / most;
    size = (share + tasks - 1) / tasks;
  }
  for (size_t i = 0; i < planned; ++i) {
    const int64_t count = GroupsOf(parts[i].weight->out_dim());
    for (int64_t panel = 0; panel < count; panel += size) {
      panel_tasks_.push_back({i, panel, std::min(size, count - panel)});
    }
  }
}

void CpuOps::ComputePanels(const LinearPart& part, size_t index,
                           const PanelTask& task, int64_t row_begin,
                           int64_t row_end, float* tile, int64_t tile_stride) {
  const int64_t col = task.panel * kGroup;
  const int64_t cols =
      std::min(task.count * kGroup, part.weight->out_dim() - col);
  const auto row = [&](int64_t i) {
    return tile + (i - row_begin) * tile_stride;
  };
  const auto add_bias = [&](const float* bias, int64_t begin, int64_t end) {
    if (bias == nullptr) return;
    for (int64_t i = begin; i < end; ++i) {
      kernels_.add(bias + col, cols, row(i));
    }
  };
  const Overrides& overrides = overrides_[index];
  if (overrides.empty()) {
    MultiplyPanels(*part.weight, task, row_begin, row_end, tile, tile_stride);
    add_bias(part.bias, row_begin, row_end);
    ExpandPanels(lora_[index], row_begin, row_end, task.panel, task.count, tile,
                 tile_stride);
    return;
  }
  const auto bias_of = [&](const LoraSlot::Override* o) {
    return o != nullptr && !o->bias.empty() ? o->bias.data() : part.bias;
  };
  // Ranges of one matrix together: weights are read once for all their rows.
  for (size_t r = 0, next; r < overrides.size(); r = next) {
    const PackedWeight* weight = WeightOf(part, overrides[r].value);
    next = r + 1;
    while (next < overrides.size() &&
           WeightOf(part, overrides[next].value) == weight) {
      ++next;
    }
    const int64_t begin = std::max(row_begin, overrides[r].row_begin);
    const int64_t end = std::min(row_end, overrides[next - 1].row_end);
    if (begin >= end) continue;
    MultiplyPanels(*weight, task, begin, end, row(begin), tile_stride);
  }
  for (const auto& [range_begin, range_end, o] : overrides) {
    if (o != nullptr && !o->gain.empty()) continue;  // its bias comes last
    add_bias(bias_of(o), std::max(row_begin, range_begin),
             std::min(row_end, range_end));
  }
  ExpandPanels(lora_[index], row_begin, row_end, task.panel, task.count, tile,
               tile_stride);
  for (const auto& [range_begin, range_end, o] : overrides) {
    if (o == nullptr || o->gain.empty()) continue;
    const float* bias = bias_of(o);
    const int64_t end = std::min(row_end, range_end);
    for (int64_t i = std::max(row_begin, range_begin); i < end; ++i) {
      kernels_.scale(o->gain.data() + col,
                     bias == nullptr ? nullptr : bias + col, cols, row(i));
    }
  }
}

// y = part, or y += part. Whole panels are computed in place.
void CpuOps::StoreTask(ConstTensor x, const LinearPart& part,
                       const PanelTask& task, Tensor y, bool add, float* tile) {
  const int64_t col = task.panel * kGroup;
  const int64_t cols = std::min(task.count * kGroup, y.cols - col);
  const bool in_place = !add && cols == task.count * kGroup;
  for (int64_t begin = 0; begin < x.rows; begin += kBlockRows) {
    const int64_t end = std::min(x.rows, begin + kBlockRows);
    float* to = in_place ? y.f32(begin) + col : tile;
    const int64_t stride = in_place ? y.stride : kTileStride;
    ComputePanels(part, task.part, task, begin, end, to, stride);
    if (in_place) continue;
    for (int64_t i = begin; i < end; ++i) {
      const float* from = tile + (i - begin) * kTileStride;
      if (add) {
        kernels_.add(from, cols, y.f32(i) + col);
      } else {
        std::memcpy(y.f32(i) + col, from,
                    static_cast<size_t>(cols) * sizeof(float));
      }
    }
  }
}

void CpuOps::SiluTask(ConstTensor x, std::span<const LinearPart> parts,
                      const PanelTask& task, Tensor y, float* tile) {
  const int64_t col = task.panel * kGroup;
  const int64_t cols = std::min(task.count * kGroup, y.cols - col);
  float* up = tile + kMaxTaskPanels * kGroup;
  for (int64_t begin = 0; begin < x.rows; begin += kBlockRows) {
    const int64_t end = std::min(x.rows, begin + kBlockRows);
    ComputePanels(parts[0], 0, task, begin, end, tile, kTileStride);
    ComputePanels(parts[1], 1, task, begin, end, up, kTileStride);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t offset = (i - begin) * kTileStride;
      kernels_.silu_mul(tile + offset, up + offset, cols, y.f32(i) + col);
    }
  }
}

void CpuOps::RunPanels(ConstTensor x, std::span<const LinearPart> parts,
                       const GroupOutput& output) {
  const bool paired = output.kind == Epilogue::Kind::kSiluMul;
  const bool add = output.kind == Epilogue::Kind::kResidual ||
                   output.kind == Epilogue::Kind::kResidualRmsNorm;
  PlanPanels(parts, paired, x.rows);
  ReadAhead(x.rows);
  pool_.ParallelFor(
      static_cast<int64_t>(panel_tasks_.size()), /*grain=*/1,
      [&](int64_t begin, int64_t end, int worker) {
        float* tile = tiles_[static_cast<size_t>(worker)].Get<float>(
            kBlockRows * kTileStride);
        for (int64_t i = begin; i < end; ++i) {
          const PanelTask& task = panel_tasks_[static_cast<size_t>(i)];
          PrefetchExpand(lora_[task.part], task.panel, task.count);
          if (paired) {
            PrefetchExpand(lora_[1], task.panel, task.count);
            SiluTask(x, parts, task, output.out, tile);
            continue;
          }
          Tensor y = output.y[std::min<size_t>(task.part, 2)];
          if (output.kind == Epilogue::Kind::kStore) {
            int64_t col = 0;
            for (size_t p = 0; p < task.part; ++p) {
              col += parts[p].weight->out_dim();
            }
            y = output.out.Cols(col, parts[task.part].weight->out_dim());
          }
          StoreTask(x, parts[task.part], task, y, add, tile);
        }
      });
}

void CpuOps::FinishRope(const RopeKvAppend& rope, const LoraBatch& lora,
                        Tensor q, Tensor k, Tensor v) {
  HostStream stream;
  const int64_t head_dim = rope.kv.head_dim;
  const int64_t half = head_dim / 2;
  const auto q_norms = SplitRows(lora, rope.q_norm_id, q.rows);
  const auto k_norms = SplitRows(lora, rope.k_norm_id, k.rows);
  const auto rotate = [&](Tensor x, int64_t i, const float* norm) {
    for (int64_t h = 0; h < x.cols; h += head_dim) {
      float* head = x.f32(i) + h;
      if (norm != nullptr) {
        kernels_.rms_norm(head, norm, rope.eps, head_dim, head);
      }
      kernels_.rope_head(head, head_dim, rope.cos + i * half,
                         rope.sin + i * half);
    }
  };
  ForRows(q.rows, q.cols + 2 * k.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      rotate(q, i, NormOfRow(q_norms, rope.q_norm, i));
      rotate(k, i, NormOfRow(k_norms, rope.k_norm, i));
    }
  });
  KvAppend(k, v, rope.kv, rope.sequences, stream);
}

void CpuOps::ReplaceRows(ConstTensor x, std::span<const LinearPart> parts,
                         Tensor out, Stream& stream) {
  int64_t col = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const int64_t cols = parts[p].weight->out_dim();
    const Tensor y = out.Cols(col, cols);
    col += cols;
    const Overrides overrides = overrides_[p];  // Gemm uses the member
    for (const auto& [begin, end, o] : overrides) {
      if (o == nullptr || o->rows == nullptr) continue;
      const int64_t rows = end - begin;
      const int64_t count = o->rows->out_dim();
      const Tensor replaced =
          Tensor::F32(replaced_.Get<float>(rows * count), rows, count);
      const ConstTensor in(x.f32(begin), x.dtype, rows, x.cols, x.stride);
      Gemm(in, *o->rows, nullptr, replaced, stream);
      ScatterColumns(replaced, o->replaced, y.Rows(begin, rows), stream);
    }
  }
}

void CpuOps::LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                         const LoraBatch& lora, const Epilogue& epilogue,
                         Tensor out, Stream& stream) {
  if (x.rows == 0) return;
  int64_t width = 0;
  for (const LinearPart& part : parts) {
    CHECK_EQ(part.weight->in_dim(), x.cols);
    width += part.weight->out_dim();
  }
  // Region 1.
  lora_.resize(std::max(lora_.size(), parts.size()));
  for (std::vector<LoraWork>& work : lora_) work.clear();
  shrink_tasks_.clear();
  overrides_.resize(lora_.size());
  int64_t v_size = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    overrides_[i].clear();
    if (lora.empty() || !parts[i].adaptable) continue;
    v_size += LoraLayout(parts[i].id, lora, nullptr);
    overrides_[i] = SplitRows(lora, parts[i].id, x.rows);
    for (const auto& range : overrides_[i]) {
      if (range.value == nullptr || range.value->weight == nullptr) continue;
      CHECK_EQ(range.value->weight->out_dim(), parts[i].weight->out_dim());
      CHECK_EQ(range.value->weight->in_dim(), x.cols);
    }
  }
  x = PrepareInput(x, parts);
  if (v_size > 0) {
    float* v = shrunk_.Get<float>(v_size);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!parts[i].adaptable) continue;
      v += CollectLora(parts[i].id, lora, v, lora_[i]);
      for (const LoraWork& work : lora_[i]) {
        CHECK_EQ(work.weights->out_dim(), parts[i].weight->out_dim());
      }
      CollectShrink(lora_[i]);
    }
    RunShrink(x);
  }
  // Region 2 and 3.
  GroupOutput output;
  output.kind = epilogue.kind;
  output.out = out;
  switch (epilogue.kind) {
    case Epilogue::Kind::kStore:
      CHECK_EQ(out.cols, width);
      RunPanels(x, parts, output);
      if (!lora.empty()) ReplaceRows(x, parts, out, stream);
      break;
    case Epilogue::Kind::kSiluMul:
      CHECK_EQ(parts.size(), size_t{2});
      CHECK_EQ(parts[0].weight->out_dim(), out.cols);
      CHECK_EQ(parts[1].weight->out_dim(), out.cols);
      RunPanels(x, parts, output);
      break;
    case Epilogue::Kind::kResidual:
    case Epilogue::Kind::kResidualRmsNorm:
      CHECK_EQ(parts.size(), size_t{1});
      CHECK_EQ(epilogue.residual.cols, width);
      output.y[0] = epilogue.residual;
      RunPanels(x, parts, output);
      if (epilogue.kind == Epilogue::Kind::kResidual) break;
      NormGroup(epilogue.residual, epilogue.norm_id, epilogue.norm_weight,
                epilogue.eps, lora, /*heads=*/1, out, stream);
      break;
    case Epilogue::Kind::kRopeKvAppend: {
      CHECK_EQ(parts.size(), size_t{3});
      const int64_t kv_cols = parts[1].weight->out_dim();
      CHECK_EQ(parts[2].weight->out_dim(), kv_cols);
      float* kv = parts_.Get<float>(2 * x.rows * kv_cols);
      output.y[0] = out;
      output.y[1] = Tensor::F32(kv, x.rows, kv_cols);
      output.y[2] = Tensor::F32(kv + x.rows * kv_cols, x.rows, kv_cols);
      RunPanels(x, parts, output);
      FinishRope(*epilogue.rope, lora, output.y[0], output.y[1], output.y[2]);
      break;
    }
  }
}

}  // namespace lorikeet::cpu
