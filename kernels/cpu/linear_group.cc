// The fused group of linears. Two or three parallel regions:
//   1  LoRA shrink of all parts, only if a segment adapts one of them
//   2  panels of all parts: GEMM, bias, LoRA expand and, where it concerns a
//      row's columns alone, the epilogue (silu * mul, residual) in cache
//   3  what needs whole rows: RMSNorm; head norms, RoPE and the KV append
// Rows are taken in blocks so that a tile of results stays in cache; weights of
// a task stay in L2 between the blocks.

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

void CpuOps::ComputePanels(const LinearPart& part,
                           const std::vector<LoraWork>& lora,
                           const PanelTask& task, int64_t row_begin,
                           int64_t row_end, float* tile, int64_t tile_stride) {
  const Panels& panels = static_cast<const Weight&>(*part.weight).panels;
  MultiplyPanels(panels, task.panel, task.count, row_begin, row_end - row_begin,
                 tile, tile_stride);
  if (part.bias != nullptr) {
    const int64_t col = task.panel * kGroup;
    const int64_t cols = std::min(task.count * kGroup, panels.rows() - col);
    for (int64_t i = 0; i < row_end - row_begin; ++i) {
      kernels_.add(part.bias + col, cols, tile + i * tile_stride);
    }
  }
  ExpandPanels(lora, row_begin, row_end, task.panel, task.count, tile,
               tile_stride);
}

// y = part, or y += part. Whole panels are computed in place.
void CpuOps::StoreTask(ConstTensor x, const LinearPart& part,
                       const std::vector<LoraWork>& lora, const PanelTask& task,
                       Tensor y, bool add, float* tile) {
  const int64_t col = task.panel * kGroup;
  const int64_t cols = std::min(task.count * kGroup, y.cols - col);
  const bool in_place = !add && cols == task.count * kGroup;
  for (int64_t begin = 0; begin < x.rows; begin += kBlockRows) {
    const int64_t end = std::min(x.rows, begin + kBlockRows);
    float* to = in_place ? y.f32(begin) + col : tile;
    const int64_t stride = in_place ? y.stride : kTileStride;
    ComputePanels(part, lora, task, begin, end, to, stride);
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
    ComputePanels(parts[0], lora_[0], task, begin, end, tile, kTileStride);
    ComputePanels(parts[1], lora_[1], task, begin, end, up, kTileStride);
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
          StoreTask(x, parts[task.part], lora_[task.part], task, y, add, tile);
        }
      });
}

void CpuOps::FinishRope(const RopeKvAppend& rope, Tensor q, Tensor k,
                        Tensor v) {
  HostStream stream;
  const int64_t head_dim = rope.kv.head_dim;
  const int64_t half = head_dim / 2;
  ForRows(q.rows, q.cols + 2 * k.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* cos = rope.cos + i * half;
      const float* sin = rope.sin + i * half;
      for (int64_t h = 0; h < q.cols; h += head_dim) {
        float* head = q.f32(i) + h;
        if (rope.q_norm != nullptr) {
          kernels_.rms_norm(head, rope.q_norm, rope.eps, head_dim, head);
        }
        kernels_.rope_head(head, head_dim, cos, sin);
      }
      for (int64_t h = 0; h < k.cols; h += head_dim) {
        float* head = k.f32(i) + h;
        if (rope.k_norm != nullptr) {
          kernels_.rms_norm(head, rope.k_norm, rope.eps, head_dim, head);
        }
        kernels_.rope_head(head, head_dim, cos, sin);
      }
    }
  });
  KvAppend(k, v, rope.kv, rope.sequences, stream);
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
  x = PrepareInput(x, parts);
  // Region 1.
  lora_.resize(std::max(lora_.size(), parts.size()));
  for (std::vector<LoraWork>& work : lora_) work.clear();
  shrink_tasks_.clear();
  int64_t v_size = 0;
  for (const LinearPart& part : parts) {
    if (part.adaptable) v_size += LoraLayout(part.id, lora, nullptr);
  }
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
      RmsNorm(epilogue.residual, epilogue.norm_weight, epilogue.eps, out,
              stream);
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
      FinishRope(*epilogue.rope, output.y[0], output.y[1], output.y[2]);
      break;
    }
  }
}

}  // namespace lorikeet::cpu
