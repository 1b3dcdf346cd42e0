// Causal attention inside of sequences and its gradients, by (sequence, head).
//
// A tile of 48 queries meets all keys that it sees. K, transposed into panels
// of 32 keys, gives the scores; V and K are read as they lie, for y = P V and
// dq = dS K. Gradients of keys are chains over ascending query tiles, one per
// head; the heads of a kv head are then added in ascending order. A task is one
// head of one sequence, so results do not depend on threads.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/train/operators.h"

namespace lorikeet::cpu {
namespace {

constexpr int64_t kQueries = 48;
// Whose exp is 0, without the trouble of infinities.
constexpr float kMasked = -1e30f;

constexpr int64_t Padded(int64_t n) { return GroupsOf(n) * kGroup; }

// Rows of one sequence, columns of one head.
ConstTensor Slice(ConstTensor m, const SequenceRows& s, int64_t head,
                  int64_t head_dim) {
  ConstTensor slice(m);
  slice.data = m.f32(s.row_begin) + head * head_dim;
  slice.rows = s.row_end - s.row_begin;
  slice.cols = head_dim;
  return slice;
}
Tensor Slice(Tensor m, const SequenceRows& s, int64_t head, int64_t head_dim) {
  return m.Rows(s.row_begin, s.row_end - s.row_begin)
      .Cols(head * head_dim, head_dim);
}

// The scratch memory of a task.
struct Memory {
  static int64_t Floats(int64_t rows, int64_t head_dim) {
    return Padded(rows) * (2 * head_dim + 2 * kQueries + kGroup);
  }
  Memory(float* at, int64_t rows, int64_t head_dim)
      : keys(at),
        values(keys + Padded(rows) * head_dim),
        scores(values + Padded(rows) * head_dim),
        gradients(scores + Padded(rows) * kQueries),
        copy(gradients + Padded(rows) * kQueries) {}

  float* keys;       // K transposed: panels of [head_dim][32]
  float* values;     // V alike
  float* scores;     // [kQueries, Padded(rows)]
  float* gradients;  // the same
  float* copy;       // [rows, 32]
};

// One head of one sequence: q, k, v are its slices.
class HeadAttention {
 public:
  HeadAttention(const TrainKernels& train, const KernelTable& kernels,
                const AttentionHeads& heads, ConstTensor q, ConstTensor k,
                ConstTensor v, const Memory& memory)
      : train_(train),
        kernels_(kernels),
        heads_(heads),
        q_(q),
        k_(k),
        v_(v),
        memory_(memory),
        width_(Padded(q.rows)) {
    TransposePanels(k_, memory_.keys);
  }

  // lse: column of this head.
  void Forward(Tensor y, Tensor lse) {
    for (int64_t first = 0; first < q_.rows; first += kQueries) {
      SetTile(first);
      Scores(q_, memory_.keys, heads_.scale, memory_.scores);
      for (int64_t i = 0; i < rows_; ++i) SoftmaxRow(i, lse.f32(first + i));
      TimesRows(memory_.scores, v_, y.Rows(first, rows_));
    }
  }

  // dk, dv are of this head alone and begin as zero.
  void Backward(ConstTensor y, ConstTensor lse, ConstTensor dy, Tensor dq,
                Tensor dk, Tensor dv) {
    TransposePanels(v_, memory_.values);
    for (int64_t first = 0; first < q_.rows; first += kQueries) {
      SetTile(first);
      Scores(q_, memory_.keys, heads_.scale, memory_.scores);
      Scores(dy, memory_.values, 1, memory_.gradients);
      for (int64_t i = 0; i < rows_; ++i) {
        const int64_t row = first + i;
        const float along = train_.dot(dy.f32(row), y.f32(row), y.cols);
        float* p = memory_.scores + i * width_;
        Exponentials(i, *lse.f32(row));
        train_.softmax_backward(p, along, heads_.scale, keys_,
                                memory_.gradients + i * width_);
      }
      TimesRows(memory_.gradients, k_, dq.Rows(first, rows_));
      AddTransposed(memory_.gradients, Tile(q_), dk.Rows(key_begin_, keys_));
      AddTransposed(memory_.scores, Tile(dy), dv.Rows(key_begin_, keys_));
    }
  }

 private:
  // Queries [first, first + rows_) see keys [key_begin_, key_begin_ + keys_).
  void SetTile(int64_t first) {
    first_ = first;
    rows_ = std::min(kQueries, q_.rows - first);
    const int64_t end = first + rows_;
    key_begin_ = 0;
    if (heads_.window > 0) {
      key_begin_ =
          std::max<int64_t>(0, first - heads_.window + 1) / kGroup * kGroup;
    }
    keys_ = end - key_begin_;
  }

  ConstTensor Tile(ConstTensor m) const {
    ConstTensor tile(m);
    tile.data = m.f32(first_);
    tile.rows = rows_;
    return tile;
  }

  void TransposePanels(ConstTensor m, float* panels) const {
    for (int64_t i = 0; i < m.rows; i += kGroup) {
      train_.transpose(m.f32(i), m.stride, std::min(kGroup, m.rows - i), m.cols,
                       panels + i * m.cols);
    }
  }

  // out [rows_, keys_ rounded up] = scale * tile of x times keys.
  void Scores(ConstTensor x, const float* panels, float scale, float* out) {
    TileProductArgs args;
    args.x = x.f32(first_);
    args.x_row = x.stride;
    args.rows = rows_;
    args.k = x.cols;
    args.alpha = scale;
    args.y_row = width_;
    for (int64_t j = 0; j < keys_; j += kGroup) {
      args.w = panels + (key_begin_ + j) * x.cols;
      args.y = out + j;
      train_.tile_product(args);
    }
  }

  // Scores of row i become exp(score - offset); what it must not see is 0.
  // Returns the sum.
  double Exponentials(int64_t i, float offset) {
    float* row = memory_.scores + i * width_;
    const int64_t seen = first_ + i + 1 - key_begin_;
    const int64_t hidden =
        heads_.window > 0 ? std::max<int64_t>(0, seen - heads_.window) : 0;
    // Whole vectors are faster than the rest of one.
    const int64_t end = std::min(Padded(seen), Padded(keys_));
    std::fill(row, row + hidden, kMasked);
    std::fill(row + seen, row + end, kMasked);
    const double sum = kernels_.exp_sum(row, offset, 1, end, row);
    std::fill(row + end, row + Padded(keys_), 0.0f);
    return sum;
  }

  void SoftmaxRow(int64_t i, float* lse) {
    float* row = memory_.scores + i * width_;
    const int64_t seen = first_ + i + 1 - key_begin_;
    const int64_t hidden =
        heads_.window > 0 ? std::max<int64_t>(0, seen - heads_.window) : 0;
    float largest;
    int64_t index;
    kernels_.arg_max(row + hidden, seen - hidden, &largest, &index);
    const double sum = Exponentials(i, largest);
    *lse = static_cast<float>(static_cast<double>(largest) + std::log(sum));
    train_.multiply(static_cast<float>(1 / sum), keys_, row);
  }

  // Calls fn(args, column) with w = 32 columns of m, which has few rows or
  // many; args.w_k and args.cols are set.
  template <typename Fn>
  void ForColumns(ConstTensor m, const Fn& fn) {
    for (int64_t c = 0; c < m.cols; c += kGroup) {
      TileProductArgs args;
      args.cols = std::min(kGroup, m.cols - c);
      if (args.cols == kGroup || args.cols == kGroup / 2) {
        args.w = m.f32(0) + c;
        args.w_k = m.stride;
      } else {
        for (int64_t i = 0; i < m.rows; ++i) {
          float* to = memory_.copy + i * kGroup;
          std::copy_n(m.f32(i) + c, args.cols, to);
          std::fill(to + args.cols, to + kGroup, 0.0f);
        }
        args.w = memory_.copy;
      }
      fn(args, c);
    }
  }

  // y [rows_, head_dim] = x [rows_, keys_] times the keys' rows of m.
  void TimesRows(const float* x, ConstTensor m, Tensor y) {
    ConstTensor seen(m);
    seen.data = m.f32(key_begin_);
    seen.rows = keys_;
    ForColumns(seen, [&](TileProductArgs args, int64_t column) {
      args.x = x;
      args.x_row = width_;
      args.rows = rows_;
      args.k = keys_;
      args.y = y.f32(0) + column;
      args.y_row = y.stride;
      train_.tile_product(args);
    });
  }

  // y [keys_, head_dim] += x [rows_, keys_] transposed times m [rows_, ...].
  void AddTransposed(const float* x, ConstTensor m, Tensor y) {
    ForColumns(m, [&](TileProductArgs args, int64_t column) {
      args.x = x;
      args.x_row = 1;
      args.x_k = width_;
      args.rows = keys_;
      args.k = rows_;
      args.accumulate = true;
      args.y = y.f32(0) + column;
      args.y_row = y.stride;
      train_.tile_product(args);
    });
  }

  const TrainKernels& train_;
  const KernelTable& kernels_;
  const AttentionHeads& heads_;
  const ConstTensor q_, k_, v_;
  const Memory memory_;
  const int64_t width_;  // of the scores
  int64_t first_ = 0, rows_ = 0, key_begin_ = 0, keys_ = 0;
};

// out of kv head = sum over its heads, ascending.
void AddHeads(const KernelTable& kernels, const AttentionHeads& heads,
              Tensor by_head, int64_t row, Tensor out) {
  const int64_t d = heads.head_dim;
  const int64_t group = heads.heads / heads.kv_heads;
  for (int64_t kv = 0; kv < heads.kv_heads; ++kv) {
    const float* from = by_head.f32(row) + kv * group * d;
    float* to = out.f32(row) + kv * d;
    std::copy_n(from, d, to);
    for (int64_t h = 1; h < group; ++h) kernels.add(from + h * d, d, to);
  }
}

int64_t Longest(std::span<const SequenceRows> sequences) {
  int64_t longest = 0;
  for (const SequenceRows& s : sequences) {
    longest = std::max<int64_t>(longest, s.row_end - s.row_begin);
  }
  return longest;
}

}  // namespace

void CpuTrainOps::Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                            std::span<const SequenceRows> sequences,
                            const AttentionHeads& heads, Tensor y, Tensor lse,
                            Stream&) {
  const int64_t d = heads.head_dim;
  const int64_t group = heads.heads / heads.kv_heads;
  const int64_t longest = Longest(sequences);
  const int64_t tasks = static_cast<int64_t>(sequences.size()) * heads.heads;
  pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      const SequenceRows& s =
          sequences[static_cast<size_t>(task / heads.heads)];
      const int64_t h = task % heads.heads;
      const Memory memory(scratch(worker, Memory::Floats(longest, d)),
                          s.row_end - s.row_begin, d);
      HeadAttention attention(train_, kernels_, heads, Slice(q, s, h, d),
                              Slice(k, s, h / group, d),
                              Slice(v, s, h / group, d), memory);
      attention.Forward(Slice(y, s, h, d), Slice(lse, s, h, 1));
    }
  });
}

void CpuTrainOps::AttentionBackward(ConstTensor q, ConstTensor k, ConstTensor v,
                                    ConstTensor y, ConstTensor lse,
                                    ConstTensor dy,
                                    std::span<const SequenceRows> sequences,
                                    const AttentionHeads& heads, Tensor dq,
                                    Tensor dk, Tensor dv, Stream&) {
  const int64_t d = heads.head_dim;
  const int64_t group = heads.heads / heads.kv_heads;
  const int64_t longest = Longest(sequences);
  const int64_t tasks = static_cast<int64_t>(sequences.size()) * heads.heads;
  float* memory = head_gradients_.Get<float>(2 * q.rows * q.cols);
  std::fill_n(memory, 2 * q.rows * q.cols, 0.0f);
  const Tensor dk_heads = Tensor::F32(memory, q.rows, q.cols);
  const Tensor dv_heads = Tensor::F32(memory + q.rows * q.cols, q.rows, q.cols);
  pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t task = begin; task < end; ++task) {
      const SequenceRows& s =
          sequences[static_cast<size_t>(task / heads.heads)];
      const int64_t h = task % heads.heads;
      const Memory own(scratch(worker, Memory::Floats(longest, d)),
                       s.row_end - s.row_begin, d);
      HeadAttention attention(train_, kernels_, heads, Slice(q, s, h, d),
                              Slice(k, s, h / group, d),
                              Slice(v, s, h / group, d), own);
      attention.Backward(Slice(y, s, h, d), Slice(lse, s, h, 1),
                         Slice(dy, s, h, d), Slice(dq, s, h, d),
                         Slice(dk_heads, s, h, d), Slice(dv_heads, s, h, d));
    }
  });
  ForRows(q.rows, q.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      AddHeads(kernels_, heads, dk_heads, row, dk);
      AddHeads(kernels_, heads, dv_heads, row, dv);
    }
  });
}

}  // namespace lorikeet::cpu
