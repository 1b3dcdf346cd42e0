// Attention over the paged cache, one split of 256 positions at a time.
//
// Order of a (row, head): for each tile of 32 keys, aligned to position 0, that
// holds a visible key:
//   s_j = scale * (chain over ascending d of q_d k_jd), key j in lane j mod W
//   m' = max(m, max_j s_j), c = exp(m - m'), p_j = exp(s_j - m')
//   l = l c + sum_j p_j (vectors of the tile in order, then across lanes)
//   o = o c, then one chain over ascending visible j of p_j v_j
// The splits' (m, l, o) are merged in ascending order. Query tiles, threads and
// splitting among threads decide only who computes, never what.
//
// Keys and values that a row may not see are not part of its sums; positions
// past the sequence's last row are never loaded.

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int kTileVectors = static_cast<int>(kTile) / kLanes;
// Vectors (row, head) whose scores are computed together.
constexpr int kScoreRows = kLanes == 16 ? 8 : kLanes == 8 ? 3 : 1;
// The same for the sum over values, and vectors of head_dim at once.
constexpr int kValueRows = kLanes == 16 ? 4 : 2;
constexpr int kValueVectors = 4;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The keys [begin, end) of a tile that a row sees.
struct Visible {
  int64_t begin = 0;
  int64_t end = 0;
  bool empty() const { return begin >= end; }
};

Visible VisibleKeys(const AttendArgs& args, int64_t row, int64_t tile) {
  const int64_t position = args.first_position + row;
  const int64_t first =
      args.window > 0 ? std::max<int64_t>(0, position - args.window + 1) : 0;
  return {std::max<int64_t>(0, first - tile),
          std::min<int64_t>(kTile, position + 1 - tile)};
}

// Four lanes of head_dim of one key.
template <DType kType, typename D4>
HWY_INLINE hn::Vec<D4> LoadFour(D4 d4, const char* keys, int64_t index) {
  if constexpr (kType == DType::kF32) {
    return hn::LoadU(d4, reinterpret_cast<const float*>(keys) + index);
  } else {
    const hn::Rebind<uint16_t, D4> d16;
    const hn::RebindToUnsigned<D4> d32;
    const auto bits =
        hn::LoadU(d16, reinterpret_cast<const uint16_t*>(keys) + index);
    return hn::BitCast(d4, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  }
}

// to[d * 32 + j] = keys[j * head_dim + d] for j < count; other lanes keep what
// they held (zero or older keys: finite or masked).
template <DType kType>
void TransposeKeys(const char* keys, int64_t count, int64_t head_dim,
                   float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d4;
  const hn::RepartitionToWide<decltype(d4)> d2;
  const int64_t fours = head_dim / 4 * 4;
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    for (int64_t d = 0; d < fours; d += 4) {
      const auto a = LoadFour<kType>(d4, keys, (j + 0) * head_dim + d);
      const auto b = LoadFour<kType>(d4, keys, (j + 1) * head_dim + d);
      const auto c = LoadFour<kType>(d4, keys, (j + 2) * head_dim + d);
      const auto e = LoadFour<kType>(d4, keys, (j + 3) * head_dim + d);
      const auto ab_low = hn::BitCast(d2, hn::InterleaveLower(d4, a, b));
      const auto ab_high = hn::BitCast(d2, hn::InterleaveUpper(d4, a, b));
      const auto ce_low = hn::BitCast(d2, hn::InterleaveLower(d4, c, e));
      const auto ce_high = hn::BitCast(d2, hn::InterleaveUpper(d4, c, e));
      float* out = to + d * kTile + j;
      hn::Store(hn::BitCast(d4, hn::InterleaveLower(d2, ab_low, ce_low)), d4,
                out);
      hn::Store(hn::BitCast(d4, hn::InterleaveUpper(d2, ab_low, ce_low)), d4,
                out + kTile);
      hn::Store(hn::BitCast(d4, hn::InterleaveLower(d2, ab_high, ce_high)), d4,
                out + 2 * kTile);
      hn::Store(hn::BitCast(d4, hn::InterleaveUpper(d2, ab_high, ce_high)), d4,
                out + 3 * kTile);
    }
    for (int64_t d = fours; d < head_dim; ++d) {
      for (int64_t i = j; i < j + 4; ++i) {
        to[d * kTile + i] = LoadElement(kType, keys, i * head_dim + d);
      }
    }
  }
  for (; j < count; ++j) {
    for (int64_t d = 0; d < head_dim; ++d) {
      to[d * kTile + j] = LoadElement(kType, keys, j * head_dim + d);
    }
  }
}

// to[j * padded + d] = values[j * head_dim + d] as f32.
template <DType kType>
void WidenValues(const char* values, int64_t count, int64_t head_dim,
                 float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d4;
  const int64_t padded = PaddedHead(head_dim);
  const int64_t fours = head_dim / 4 * 4;
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < fours; d += 4) {
      hn::Store(LoadFour<kType>(d4, values, j * head_dim + d), d4,
                to + j * padded + d);
    }
    for (int64_t d = fours; d < head_dim; ++d) {
      to[j * padded + d] = LoadElement(kType, values, j * head_dim + d);
    }
  }
}

// A tile as the loops read it.
struct TileData {
  const float* keys;    // [head_dim, 32]
  const float* values;  // [32, value_stride]
  int64_t value_stride;
};

// Scores of kRows vectors against the tile.
template <int kRows>
HWY_INLINE void Scores(const float* const* q, int64_t head_dim, float scale,
                       const float* HWY_RESTRICT keys, float* scores) {
  const FloatTag d;
  FloatVec sum[kRows][kTileVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    FloatVec key[kTileVectors];
    HWY_UNROLL(8)
    for (int v = 0; v < kTileVectors; ++v) {
      key[v] = hn::Load(d, keys + i * kTile + v * kLanes);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const FloatVec in = hn::Set(d, q[r][i]);
      HWY_UNROLL(8)
      for (int v = 0; v < kTileVectors; ++v) {
        sum[r][v] = hn::MulAdd(in, key[v], sum[r][v]);
      }
    }
  }
  const FloatVec scales = hn::Set(d, scale);
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kTileVectors; ++v) {
      hn::Store(hn::Mul(sum[r][v], scales), d, scores + r * kTile + v * kLanes);
    }
  }
}

// One step of the online softmax of kRows vectors side by side: scores become
// weights, 0 where not visible, and factors[r] that of what was summed before.
template <int kRows>
HWY_INLINE void SoftmaxStep(const Visible* visible, float* scores, float* max,
                            float* sum, float* factors) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  float new_max[kRows];
  for (int r = 0; r < kRows; ++r) {
    float* row = scores + r * kTile;
    if (visible[r].begin > 0 || visible[r].end < kTile) {
      for (int64_t j = 0; j < visible[r].begin; ++j) row[j] = kMinusInfinity;
      for (int64_t j = visible[r].end; j < kTile; ++j) row[j] = kMinusInfinity;
    }
    FloatVec best = lowest;
    HWY_UNROLL(8)
    for (int v = 0; v < kTileVectors; ++v) {
      best = hn::Max(best, hn::Load(d, row + v * kLanes));
    }
    new_max[r] = std::max(max[r], hn::GetLane(hn::MaxOfLanes(d, best)));
    factors[r] = max[r] - new_max[r];
    max[r] = new_max[r];
  }
  for (int r = 0; r < kRows; r += kLanes) {
    // kRows is at most 8, factors has room for a vector.
    hn::Store(hn::Exp(d, hn::Load(d, factors + r)), d, factors + r);
  }
  for (int r = 0; r < kRows; ++r) {
    float* row = scores + r * kTile;
    const FloatVec shift = hn::Set(d, new_max[r]);
    FloatVec total = hn::Zero(d);
    HWY_UNROLL(8)
    for (int v = 0; v < kTileVectors; ++v) {
      const FloatVec weight =
          hn::Exp(d, hn::Sub(hn::Load(d, row + v * kLanes), shift));
      total = v == 0 ? weight : hn::Add(total, weight);
      hn::Store(weight, d, row + v * kLanes);
    }
    const FloatVec added = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, total)));
    sum[r] = hn::GetLane(
        hn::MulAdd(hn::Set(d, sum[r]), hn::Set(d, factors[r]), added));
  }
}

// out = out * factor + sum over visible keys of weight * value, for kRows
// vectors that see the same keys and kVectors vectors of head_dim.
template <int kRows, int kVectors>
HWY_INLINE void AddValues(Visible visible, const float* factors,
                          const float* weights, const TileData& tile,
                          int64_t column, float* const* out) {
  const FloatTag d;
  FloatVec sum[kRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    const FloatVec factor = hn::Set(d, factors[r]);
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = hn::Mul(factor, hn::Load(d, out[r] + column + v * kLanes));
    }
  }
  for (int64_t j = visible.begin; j < visible.end; ++j) {
    const float* HWY_RESTRICT value =
        tile.values + j * tile.value_stride + column;
    FloatVec in[kVectors];
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      in[v] = hn::LoadU(d, value + v * kLanes);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const FloatVec weight = hn::Set(d, weights[r * kTile + j]);
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = hn::MulAdd(weight, in[v], sum[r][v]);
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(sum[r][v], d, out[r] + column + v * kLanes);
    }
  }
}

template <int kRows>
void AddValuesOfRows(Visible visible, const float* factors,
                     const float* weights, const TileData& tile, int64_t width,
                     float* const* out) {
  int64_t column = 0;
  for (; column + kValueVectors * kLanes <= width;
       column += kValueVectors * kLanes) {
    AddValues<kRows, kValueVectors>(visible, factors, weights, tile, column,
                                    out);
  }
  for (; column < width; column += kLanes) {
    AddValues<kRows, 1>(visible, factors, weights, tile, column, out);
  }
}

// Up to kScoreRows vectors, beginning with vector `first`, against a tile.
// They all see some key of it.
template <int kRows>
void AttendVectors(const AttendArgs& args, int64_t first, int64_t tile_position,
                   const TileData& tile, float* scores) {
  const float* q[kRows];
  float* out[kRows];
  HWY_ALIGN float factors[16] = {};
  Visible visible[kRows];
  const int64_t padded = PaddedHead(args.head_dim);
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = (first + r) / args.group;
    const int64_t head = (first + r) % args.group;
    q[r] = args.q + row * args.q_stride + head * args.head_dim;
    out[r] = args.out + (first + r) * padded;
    visible[r] = VisibleKeys(args, row, tile_position);
  }
  Scores<kRows>(q, args.head_dim, args.scale, tile.keys, scores);
  SoftmaxStep<kRows>(visible, scores, args.max + first, args.sum + first,
                     factors);
  const int64_t width = (args.head_dim + kLanes - 1) / kLanes * kLanes;
  for (int r = 0; r < kRows;) {
    if constexpr (kRows >= kValueRows) {
      bool same = r + kValueRows <= kRows;
      for (int i = 1; same && i < kValueRows; ++i) {
        same = visible[r + i].begin == visible[r].begin &&
               visible[r + i].end == visible[r].end;
      }
      if (same) {
        AddValuesOfRows<kValueRows>(visible[r], factors + r, scores + r * kTile,
                                    tile, width, out + r);
        r += kValueRows;
        continue;
      }
    }
    AddValuesOfRows<1>(visible[r], factors + r, scores + r * kTile, tile, width,
                       out + r);
    ++r;
  }
}

template <int kRows>
HWY_INLINE void DispatchVectors(const AttendArgs& args, int64_t first,
                                int64_t count, int64_t tile_position,
                                const TileData& tile, float* scores) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      return AttendVectors<kRows>(args, first, tile_position, tile, scores);
    }
    DispatchVectors<kRows - 1>(args, first, count, tile_position, tile, scores);
  }
}

// Offset in bytes of a tile's keys (and values) in the cache.
int64_t TileOffset(const AttendArgs& args, int64_t tile) {
  const int64_t block = args.block_table[tile / args.block_size];
  return block * args.block_stride_bytes +
         tile % args.block_size * args.head_dim * SizeBytes(args.dtype);
}

void PrefetchTile(const AttendArgs& args, const char* plane, int64_t tile) {
  const char* begin = plane + TileOffset(args, tile);
  const int64_t bytes = kTile * args.head_dim * SizeBytes(args.dtype);
  for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(begin + i);
}

// Where the keys and values of a tile lie, made ready for the loops.
TileData LoadTile(const AttendArgs& args, int64_t tile, int64_t count) {
  const int64_t offset = TileOffset(args, tile);
  const char* k = args.k + offset;
  const char* v = args.v + offset;
  float* keys = args.work;
  float* values = keys + kTile * PaddedHead(args.head_dim);
  if (args.dtype == DType::kF32) {
    TransposeKeys<DType::kF32>(k, count, args.head_dim, keys);
    if (args.head_dim % kLanes == 0) {
      return {keys, reinterpret_cast<const float*>(v), args.head_dim};
    }
    WidenValues<DType::kF32>(v, count, args.head_dim, values);
  } else {
    TransposeKeys<DType::kBF16>(k, count, args.head_dim, keys);
    WidenValues<DType::kBF16>(v, count, args.head_dim, values);
  }
  return {keys, values, PaddedHead(args.head_dim)};
}

// Rows that see some key of a tile are consecutive, since both ends of what a
// row sees grow with the row.
void AttendTile(const AttendArgs& args, int64_t tile) {
  int64_t row_begin = 0;
  while (row_begin < args.rows && VisibleKeys(args, row_begin, tile).empty()) {
    ++row_begin;
  }
  int64_t row_end = row_begin;
  while (row_end < args.rows && !VisibleKeys(args, row_end, tile).empty()) {
    ++row_end;
  }
  if (row_begin == row_end) return;
  const int64_t count = std::min(kTile, args.first_position + row_end - tile);
  // Few vectors: memory is what a tile waits for.
  if (args.rows * args.group <= kScoreRows) {
    PrefetchTile(args, args.v, tile);
    if (tile + kTile < args.first_position + args.rows) {
      PrefetchTile(args, args.k, tile + kTile);
    }
  }
  const TileData data = LoadTile(args, tile, count);
  float* scores = args.work + 2 * kTile * PaddedHead(args.head_dim);
  const int64_t end = row_end * args.group;
  for (int64_t i = row_begin * args.group; i < end; i += kScoreRows) {
    DispatchVectors<kScoreRows>(args, i, std::min<int64_t>(kScoreRows, end - i),
                                tile, data, scores);
  }
}

// The kv heads of a tile lie one behind the other in the cache: with them in
// the inner loop memory is read in order.
void AttendSplit(const AttendArgs& args) {
  const int64_t vectors = args.rows * args.group;
  const int64_t padded = PaddedHead(args.head_dim);
  const int64_t plane = args.block_size * args.head_dim * SizeBytes(args.dtype);
  std::fill_n(args.max, args.kv_heads * vectors, kMinusInfinity);
  std::fill_n(args.sum, args.kv_heads * vectors, 0.0f);
  std::fill_n(args.out, args.kv_heads * vectors * padded, 0.0f);
  const int64_t begin = args.split * kSplit;
  const int64_t end = std::min(begin + kSplit, args.first_position + args.rows);
  for (int64_t tile = begin; tile < end; tile += kTile) {
    AttendArgs head = args;
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      AttendTile(head, tile);
      head.q += args.group * args.head_dim;
      head.k += plane;
      head.v += plane;
      head.max += vectors;
      head.sum += vectors;
      head.out += vectors * padded;
    }
  }
}

void MergeSplit(int64_t head_dim, float& max, float& sum, float* out,
                float max2, float sum2, const float* out2) {
  if (sum2 == 0) return;  // saw no key
  const FloatTag d;
  const int64_t width = PaddedHead(head_dim);
  if (sum == 0) {
    max = max2;
    sum = sum2;
    std::copy_n(out2, width, out);
    return;
  }
  const float new_max = std::max(max, max2);
  const FloatVec a = hn::Exp(d, hn::Set(d, max - new_max));
  const FloatVec b = hn::Exp(d, hn::Set(d, max2 - new_max));
  sum =
      hn::GetLane(hn::MulAdd(hn::Set(d, sum2), b, hn::Mul(hn::Set(d, sum), a)));
  max = new_max;
  for (int64_t i = 0; i < width; i += kLanes) {
    const FloatVec scaled = hn::Mul(hn::Load(d, out + i), a);
    hn::Store(hn::MulAdd(hn::Load(d, out2 + i), b, scaled), d, out + i);
  }
}

void FinishAttention(int64_t head_dim, float sum, const float* out, float* y) {
  for (int64_t i = 0; i < head_dim; ++i) y[i] = out[i] / sum;
}

}  // namespace

void FillAttentionOfTarget(KernelTable* table) {
  table->attend_split = AttendSplit;
  table->merge_split = MergeSplit;
  table->finish_attention = FinishAttention;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

// Vectors (row, head) of a task: a loaded tile is used by all of them.
constexpr int64_t kTaskVectors = 48;

// A partial result: max and sum of each vector, then the outputs.
int64_t OutOffset(int64_t vectors) { return (2 * vectors + 15) / 16 * 16; }
int64_t StateFloats(int64_t vectors, int64_t head_dim) {
  return OutOffset(vectors) + vectors * PaddedHead(head_dim);
}

}  // namespace

HWY_EXPORT(FillAttentionOfTarget);

void FillAttention(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillAttentionOfTarget)(&table);
}

struct CpuOps::AttentionShape {
  ConstTensor q;
  Tensor y;
  PagedKvView kv;
  float scale;
  int64_t window;
  int64_t group;
  int64_t task_rows;
  int64_t task_heads;    // kv heads
  int64_t state_floats;  // of one partial result of a task
};

void CpuOps::PlanAttention(const AttentionShape& shape,
                           std::span<const SequenceRows> sequences) {
  attention_tasks_.clear();
  split_tasks_.clear();
  int64_t partial = 0;
  for (const SequenceRows& s : sequences) {
    for (int64_t row = s.row_begin; row < s.row_end; row += shape.task_rows) {
      const int64_t count = std::min(shape.task_rows, s.row_end - row);
      const int64_t first = s.first_position + (row - s.row_begin);
      const int64_t seen_from =
          shape.window > 0 ? std::max<int64_t>(0, first - shape.window + 1) : 0;
      const int64_t first_split = seen_from / kSplit;
      const int64_t splits = (first + count - 1) / kSplit - first_split + 1;
      for (int64_t head = 0; head < shape.kv.kv_heads;
           head += shape.task_heads) {
        const int64_t heads =
            std::min(shape.task_heads, shape.kv.kv_heads - head);
        const int64_t task = static_cast<int64_t>(attention_tasks_.size());
        attention_tasks_.push_back(
            {&s, row, count, head, heads, first_split, splits, partial});
        partial += splits;
        for (int64_t i = 0; i < splits; ++i) split_tasks_.push_back({task, i});
      }
    }
  }
}

void CpuOps::AttendOneSplit(const AttentionShape& shape,
                            const AttentionTask& task, int64_t split,
                            float* state, float* work) {
  const PagedKvView& kv = shape.kv;
  const int64_t vectors = task.head_count * task.row_count * shape.group;
  const int64_t plane =
      task.head_begin * kv.block_size * kv.head_dim * SizeBytes(kv.dtype);
  AttendArgs args;
  args.q =
      shape.q.f32(task.row_begin) + task.head_begin * shape.group * kv.head_dim;
  args.q_stride = shape.q.stride;
  args.rows = task.row_count;
  args.kv_heads = task.head_count;
  args.group = shape.group;
  args.head_dim = kv.head_dim;
  args.first_position = task.sequence->first_position +
                        (task.row_begin - task.sequence->row_begin);
  args.window = shape.window;
  args.scale = shape.scale;
  args.k = static_cast<const char*>(kv.k) + plane;
  args.v = static_cast<const char*>(kv.v) + plane;
  args.dtype = kv.dtype;
  args.block_stride_bytes = kv.block_stride * SizeBytes(kv.dtype);
  args.block_size = kv.block_size;
  args.block_table = task.sequence->block_table.data();
  args.split = task.first_split + split;
  args.max = state;
  args.sum = state + vectors;
  args.out = state + OutOffset(vectors);
  args.work = work;
  kernels_.attend_split(args);
}

// Folds the state of a task's later split into that of the earlier ones.
void CpuOps::MergeState(const AttentionShape& shape, const AttentionTask& task,
                        float* total, const float* part) {
  const int64_t vectors = task.head_count * task.row_count * shape.group;
  const int64_t padded = PaddedHead(shape.kv.head_dim);
  const int64_t out = OutOffset(vectors);
  for (int64_t v = 0; v < vectors; ++v) {
    kernels_.merge_split(shape.kv.head_dim, total[v], total[vectors + v],
                         total + out + v * padded, part[v], part[vectors + v],
                         part + out + v * padded);
  }
}

void CpuOps::FinishTask(const AttentionShape& shape, const AttentionTask& task,
                        const float* state) {
  const int64_t head_dim = shape.kv.head_dim;
  const int64_t per_head = task.row_count * shape.group;
  const int64_t vectors = task.head_count * per_head;
  const float* out = state + OutOffset(vectors);
  for (int64_t i = 0; i < vectors; ++i) {
    const int64_t kv_head = task.head_begin + i / per_head;
    const int64_t row = task.row_begin + i % per_head / shape.group;
    const int64_t head = kv_head * shape.group + i % shape.group;
    kernels_.finish_attention(head_dim, state[vectors + i],
                              out + i * PaddedHead(head_dim),
                              shape.y.f32(row) + head * head_dim);
  }
}

// All splits of a task by one worker.
void CpuOps::AttendTask(const AttentionShape& shape, const AttentionTask& task,
                        int worker) {
  float* total = tiles_[static_cast<size_t>(worker)].Get<float>(
      2 * shape.state_floats + AttendWorkFloats(shape.kv.head_dim));
  float* part = total + shape.state_floats;
  float* work = part + shape.state_floats;
  AttendOneSplit(shape, task, 0, total, work);
  for (int64_t i = 1; i < task.split_count; ++i) {
    AttendOneSplit(shape, task, i, part, work);
    MergeState(shape, task, total, part);
  }
  FinishTask(shape, task, total);
}

// Each split by whoever is free, then the merges.
void CpuOps::AttendSplits(const AttentionShape& shape) {
  const int64_t splits = static_cast<int64_t>(split_tasks_.size());
  float* states = partials_.Get<float>(splits * shape.state_floats);
  pool_.ParallelFor(splits, 1, [&](int64_t begin, int64_t end, int worker) {
    float* work = tiles_[static_cast<size_t>(worker)].Get<float>(
        AttendWorkFloats(shape.kv.head_dim));
    for (int64_t i = begin; i < end; ++i) {
      const SplitTask& split = split_tasks_[static_cast<size_t>(i)];
      const AttentionTask& task =
          attention_tasks_[static_cast<size_t>(split.task)];
      AttendOneSplit(shape, task, split.split,
                     states + (task.partial + split.split) * shape.state_floats,
                     work);
    }
  });
  ForRows(static_cast<int64_t>(attention_tasks_.size()),
          splits * shape.state_floats, [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t) {
              const auto& task = attention_tasks_[static_cast<size_t>(t)];
              float* total = states + task.partial * shape.state_floats;
              for (int64_t i = 1; i < task.split_count; ++i) {
                MergeState(shape, task, total, total + i * shape.state_floats);
              }
              FinishTask(shape, task, total);
            }
          });
}

void CpuOps::PagedAttention(ConstTensor q, const PagedKvView& kv,
                            std::span<const SequenceRows> sequences,
                            float scale, int64_t window, Tensor y, Stream&) {
  if (q.rows == 0) return;
  const int64_t heads = q.cols / kv.head_dim;
  CHECK_EQ(heads % kv.kv_heads, 0);
  CHECK_EQ(kv.block_size % kTile, 0);
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16);
  AttentionShape shape{q, y, kv, scale, window, heads / kv.kv_heads, 0, 0, 0};
  shape.task_rows = std::max<int64_t>(1, kTaskVectors / shape.group);
  // All kv heads together read memory in order; one at a time keeps threads
  // busy when there is little to do.
  const int64_t enough = 4 * pool_.num_threads();
  shape.task_heads = kv.kv_heads;
  PlanAttention(shape, sequences);
  if (static_cast<int64_t>(split_tasks_.size()) < enough && kv.kv_heads > 1 &&
      pool_.num_threads() > 1) {
    shape.task_heads = 1;
    PlanAttention(shape, sequences);
  }
  shape.state_floats = StateFloats(
      shape.task_heads * shape.task_rows * shape.group, kv.head_dim);
  const int64_t tasks = static_cast<int64_t>(attention_tasks_.size());
  // A few long sequences would leave threads idle at the end.
  if (pool_.num_threads() > 1 &&
      tasks<enough&& static_cast<int64_t>(split_tasks_.size())> tasks) {
    return AttendSplits(shape);
  }
  pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      AttendTask(shape, attention_tasks_[static_cast<size_t>(i)], worker);
    }
  });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
