// The operators on the paged cache: which rows go where, and which tiles of
// attention there are to do.

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

// The place in the cache of each of `rows` rows; -1 = of no sequence.
std::vector<int64_t> Places(std::span<const SequenceRows> sequences,
                            int64_t block_size, int64_t rows) {
  std::vector<int64_t> places(static_cast<size_t>(rows), -1);
  for (const SequenceRows& s : sequences) {
    for (int32_t row = s.row_begin; row < s.row_end; ++row) {
      const int64_t position = s.first_position + (row - s.row_begin);
      const int64_t block =
          s.block_table[static_cast<size_t>(position / block_size)];
      places[static_cast<size_t>(row)] =
          block * block_size + position % block_size;
    }
  }
  return places;
}

// A step's attention.
struct AttentionPlan {
  std::vector<int32_t> tables;  // of all sequences, one after the other
  std::vector<AttentionTile> tiles;
  std::vector<int4> rows;  // as MergeAttention takes them
  int64_t partial_rows = 0;
};

// The tiles of rows [row, row + count) of a sequence: one per split of the keys
// that any of them sees.
void AddTiles(int32_t row, int32_t count, int32_t position, int64_t window,
              int32_t table_begin, AttentionPlan* plan) {
  const int64_t last = position + count - 1;
  const int64_t first_seen =
      window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
  const int64_t first_split = first_seen / kSplitKeys;
  const int32_t splits =
      static_cast<int32_t>(last / kSplitKeys - first_split + 1);
  const int32_t partial_row = static_cast<int32_t>(plan->partial_rows);
  for (int32_t s = 0; s < splits; ++s) {
    plan->tiles.push_back({row, count, position, table_begin,
                           static_cast<int32_t>((first_split + s) * kSplitKeys),
                           s, splits, partial_row});
  }
  for (int32_t i = 0; i < count; ++i) {
    plan->rows.push_back({row + i, partial_row + i * splits, splits, 0});
  }
  plan->partial_rows += int64_t{count} * splits;
}

AttentionPlan PlanAttention(std::span<const SequenceRows> sequences,
                            int64_t block_size, int32_t rows_per_tile,
                            int64_t window) {
  AttentionPlan plan;
  for (const SequenceRows& s : sequences) {
    const int32_t table_begin = static_cast<int32_t>(plan.tables.size());
    const int64_t positions =
        int64_t{s.first_position} + s.row_end - s.row_begin;
    const int64_t blocks = (positions + block_size - 1) / block_size;
    plan.tables.insert(plan.tables.end(), s.block_table.begin(),
                       s.block_table.begin() + blocks);
    for (int32_t row = s.row_begin; row < s.row_end; row += rows_per_tile) {
      AddTiles(row, std::min(rows_per_tile, s.row_end - row),
               s.first_position + (row - s.row_begin), window, table_begin,
               &plan);
    }
  }
  return plan;
}

}  // namespace

void CudaOps::KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                       std::span<const SequenceRows> sequences,
                       Stream& stream) {
  CHECK_EQ(k.cols, kv.kv_heads * kv.head_dim);
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int64_t* const places =
      s.Upload(Places(sequences, kv.block_size, k.rows));
  if (!s.ok()) return;
  s.Check(cuda::KvAppend(RowsOf(k), RowsOf(v), CacheOf(kv), places, s.get()),
          "KV append");
}

// Pairs run one after the other where they depend on one another, else in one
// launch.
void CudaOps::KvCopy(const PagedKvView& kv,
                     std::span<const std::pair<int32_t, int32_t>> blocks,
                     Stream& stream) {
  CudaStream& s = Of(stream);
  for (size_t begin = 0; begin < blocks.size();) {
    std::vector<int2> pairs;
    std::unordered_set<int32_t> read, written;
    size_t end = begin;
    for (; end < blocks.size(); ++end) {
      const auto [from, to] = blocks[end];
      if (written.contains(from) || written.contains(to) || read.contains(to)) {
        break;
      }
      read.insert(from);
      written.insert(to);
      if (from != to) pairs.push_back({from, to});
    }
    begin = end;
    CudaStream::Scope scope(s);
    const int2* const device = s.Upload(pairs);
    if (!s.ok()) return;
    s.Check(cuda::KvCopy(CacheOf(kv), device,
                         static_cast<int64_t>(pairs.size()), s.get()),
            "KV copy");
  }
}

void CudaOps::PagedAttention(ConstTensor q, const PagedKvView& kv,
                             std::span<const SequenceRows> sequences,
                             float scale, int64_t window, Tensor y,
                             Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  AttentionArgs args;
  args.q = RowsOf(q);
  args.y = RowsOf(y);
  args.kv = CacheOf(kv);
  args.heads = static_cast<int32_t>(q.cols / kv.head_dim);
  CHECK_EQ(args.heads % kv.kv_heads, 0);
  args.scale = scale;
  args.window = static_cast<int32_t>(window);
  const AttentionPlan plan =
      PlanAttention(sequences, kv.block_size,
                    AttentionRowsPerTile(args.kv, args.heads), window);
  args.block_tables = s.Upload(plan.tables);
  args.tiles = s.Upload(plan.tiles);
  args.tile_count = static_cast<int32_t>(plan.tiles.size());
  const int4* const rows = s.Upload(plan.rows);
  args.partials = s.ScratchOf<float>(
      plan.partial_rows * AttentionPartialFloats(args.heads, kv.head_dim));
  if (!s.ok()) return;
  s.Check(Attention(args, s.get()), "attention");
  s.Check(MergeAttention(args, rows, static_cast<int64_t>(plan.rows.size()),
                         s.get()),
          "merging attention");
}

}  // namespace lorikeet::cuda
