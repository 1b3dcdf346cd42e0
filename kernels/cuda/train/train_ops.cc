#include "kernels/cuda/train/train_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

Rows<const Bf16> WeightOf(const TrainMatrix& w) {
  return static_cast<const CudaWeight&>(*w.packed).rows();
}

// Copies `count` numbers of the device's to `out`, with their type.
template <typename T, typename Use>
void DownloadAs(const T* from, size_t count, CudaStream& stream,
                const Use& use) {
  const int64_t bytes = static_cast<int64_t>(count * sizeof(T));
  stream.Download(from, bytes, [count, use](const char* host) {
    std::vector<T> values(count);
    std::memcpy(values.data(), host, count * sizeof(T));
    use(values);
  });
}

// The rows of each token of a batch: rows[begins[i]], ... are those of
// tokens[i], ascending.
struct TokenRows {
  std::vector<int32_t> tokens, begins, rows;
};

TokenRows GroupByToken(std::span<const Token> tokens) {
  TokenRows grouped;
  grouped.rows.resize(tokens.size());
  std::iota(grouped.rows.begin(), grouped.rows.end(), 0);
  const auto token_of = [&](int32_t row) {
    return tokens[static_cast<size_t>(row)];
  };
  std::ranges::stable_sort(grouped.rows, {}, token_of);
  for (size_t i = 0; i < grouped.rows.size(); ++i) {
    const Token token = token_of(grouped.rows[i]);
    if (i > 0 && token == grouped.tokens.back()) continue;
    grouped.tokens.push_back(token);
    grouped.begins.push_back(static_cast<int32_t>(i));
  }
  grouped.begins.push_back(static_cast<int32_t>(tokens.size()));
  return grouped;
}

std::vector<SequenceTile> TilesOf(std::span<const SequenceRows> sequences,
                                  int32_t tile_rows) {
  std::vector<SequenceTile> tiles;
  for (const SequenceRows& s : sequences) {
    for (int32_t row = s.row_begin; row < s.row_end; row += tile_rows) {
      tiles.push_back({s.row_begin, s.row_end, row, 0});
    }
  }
  return tiles;
}

// What both directions tell the kernels.
TrainAttentionArgs AttentionArgsOf(ConstTensor q, ConstTensor k, ConstTensor v,
                                   std::span<const SequenceRows> sequences,
                                   const AttentionHeads& heads,
                                   CudaStream& stream) {
  CHECK_LE(heads.head_dim, kMaxTrainHeadDim);
  CHECK_EQ(heads.heads % heads.kv_heads, 0);
  const std::vector<SequenceTile> tiles =
      TilesOf(sequences, TrainAttentionTileRows(heads.head_dim));
  TrainAttentionArgs args;
  args.q = RowsOf(q);
  args.k = RowsOf(k);
  args.v = RowsOf(v);
  args.tiles = stream.Upload(tiles);
  args.tile_count = static_cast<int32_t>(tiles.size());
  args.heads = static_cast<int32_t>(heads.heads);
  args.kv_heads = static_cast<int32_t>(heads.kv_heads);
  args.head_dim = static_cast<int32_t>(heads.head_dim);
  args.scale = heads.scale;
  args.window = static_cast<int32_t>(heads.window);
  return args;
}

// The kernels only read these on the way back.
Rows<float> Mutable(const Rows<const float>& m) {
  return {const_cast<float*>(m.data), m.rows, m.cols, m.stride};
}

}  // namespace

// Here: the operators of serving know nothing of these.
absl::StatusOr<std::unique_ptr<TrainOps>> CudaOps::NewTrainOps() {
  ASSIGN_OR_RETURN(std::unique_ptr<Matmul> matmul, Matmul::Create(*pool_));
  return std::make_unique<CudaTrainOps>(std::move(matmul));
}

void CudaTrainOps::Multiply(ProductOperands operands, float alpha,
                            Rows<const float> a, Rows<const float> b,
                            const float* bias, bool accumulate, Rows<float> c,
                            CudaStream& stream) {
  CudaStream::Scope scope(stream);
  ProductArgs args{.a = a, .b = b, .c = c, .bias = bias, .alpha = alpha};
  args.k = operands == ProductOperands::kTN ? a.rows : a.cols;
  args.accumulate = accumulate ? 1 : 0;
  const int64_t pieces = ProductPieces(c.rows, c.cols, args.k);
  args.piece = (args.k + pieces - 1) / pieces;
  if (pieces > 1) {
    args.partials = stream.ScratchOf<float>(pieces * c.rows * c.cols);
  }
  if (!stream.ok()) return;
  stream.Check(cuda::Product(operands, args, pieces, stream.get()),
               "a product of training");
}

void CudaTrainOps::Linear(ConstTensor x, const TrainMatrix& w,
                          const float* bias, Tensor y, Stream& stream) {
  CHECK_EQ(x.cols, w.in_dim());
  CHECK_EQ(y.cols, w.out_dim());
  if (x.rows == 0) return;
  CudaStream& s = Of(stream);
  if (w.packed == nullptr) {
    return Multiply(ProductOperands::kNT, 1, RowsOf(x), RowsOf(w.plain), bias,
                    /*accumulate=*/false, RowsOf(y), s);
  }
  CudaStream::Scope scope(s);
  matmul_->Multiply(RoundedToBf16(x, s), WeightOf(w), bias, RowsOf(y), s);
}

void CudaTrainOps::LinearBackward(ConstTensor dy, const TrainMatrix& w,
                                  bool accumulate, Tensor dx, Stream& stream) {
  CHECK_EQ(dy.cols, w.out_dim());
  CHECK_EQ(dx.cols, w.in_dim());
  if (dy.rows == 0) return;
  CudaStream& s = Of(stream);
  if (w.packed == nullptr) {
    return Multiply(ProductOperands::kNN, 1, RowsOf(dy), RowsOf(w.plain),
                    nullptr, accumulate, RowsOf(dx), s);
  }
  CudaStream::Scope scope(s);
  matmul_->MultiplyBack(RoundedToBf16(dy, s), WeightOf(w), accumulate,
                        RowsOf(dx), s);
}

void CudaTrainOps::Product(ProductForm form, float alpha, ConstTensor a,
                           ConstTensor b, bool accumulate, Tensor c,
                           Stream& stream) {
  const bool is_tn = form == ProductForm::kTN, is_nt = form == ProductForm::kNT;
  CHECK_EQ(c.rows, is_tn ? a.cols : a.rows);
  CHECK_EQ(c.cols, is_nt ? b.rows : b.cols);
  CHECK_EQ(is_tn ? a.rows : a.cols, is_nt ? b.cols : b.rows);
  Multiply(is_tn   ? ProductOperands::kTN
           : is_nt ? ProductOperands::kNT
                   : ProductOperands::kNN,
           alpha, RowsOf(a), RowsOf(b), nullptr, accumulate, RowsOf(c),
           Of(stream));
}

void CudaTrainOps::MergedRowSquares(const TrainMatrix& w, ConstTensor a,
                                    ConstTensor b, float scale,
                                    std::span<double> out, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  double* const squares = s.ScratchOf<double>(static_cast<int64_t>(out.size()));
  if (!s.ok()) return;
  s.Check(w.packed != nullptr
              ? cuda::MergedRowSquares(WeightOf(w), RowsOf(a), RowsOf(b), scale,
                                       squares, s.get())
              : cuda::MergedRowSquares(RowsOf(w.plain), RowsOf(a), RowsOf(b),
                                       scale, squares, s.get()),
          "norms of merged rows");
  DownloadAs(squares, out.size(), s, [out](const std::vector<double>& values) {
    std::ranges::copy(values, out.begin());
  });
}

void CudaTrainOps::Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                             std::span<const SequenceRows> sequences,
                             const AttentionHeads& heads, Tensor y, Tensor lse,
                             Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  TrainAttentionArgs args = AttentionArgsOf(q, k, v, sequences, heads, s);
  args.y = RowsOf(y);
  args.lse = RowsOf(lse);
  if (!s.ok()) return;
  s.Check(TrainAttention(args, s.get()), "attention of training");
}

void CudaTrainOps::AttentionBackward(ConstTensor q, ConstTensor k,
                                     ConstTensor v, ConstTensor y,
                                     ConstTensor lse, ConstTensor dy,
                                     std::span<const SequenceRows> sequences,
                                     const AttentionHeads& heads, Tensor dq,
                                     Tensor dk, Tensor dv, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  TrainAttentionArgs args = AttentionArgsOf(q, k, v, sequences, heads, s);
  args.y = Mutable(RowsOf(y));
  args.lse = Mutable(RowsOf(lse));
  args.dy = RowsOf(dy);
  args.dq = RowsOf(dq);
  args.dk = RowsOf(dk);
  args.dv = RowsOf(dv);
  args.along = {s.ScratchOf<float>(q.rows * heads.heads), q.rows, heads.heads,
                heads.heads};
  if (!s.ok()) return;
  s.Check(TrainAttentionBackward(args, s.get()), "gradients of attention");
}

void CudaTrainOps::Clear(Tensor x, Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::Clear(RowsOf(x), s.get()), "clearing");
}

void CudaTrainOps::Copy(ConstTensor x, Tensor y, Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(GatherRows(RowsOf(x), nullptr, RowsOf(y), s.get()), "a copy");
}

void CudaTrainOps::RmsNormBackward(ConstTensor x, const float* weight,
                                   float eps, ConstTensor dy, bool accumulate,
                                   Tensor dx, float* dweight, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  if (dweight != nullptr) {  // first: dx may be dy
    float* const inverse = s.ScratchOf<float>(x.rows);
    if (!s.ok()) return;
    s.Check(InverseRms(RowsOf(x), eps, inverse, s.get()), "an RMS");
    s.Check(
        cuda::AddColumnDots(RowsOf(dy), RowsOf(x), inverse, dweight, s.get()),
        "the gradient of a norm's weight");
  }
  s.Check(cuda::RmsNormBackward(RowsOf(x), weight, eps, RowsOf(dy), accumulate,
                                RowsOf(dx), s.get()),
          "the gradient of a norm");
}

void CudaTrainOps::SiluMulBackward(ConstTensor gate, ConstTensor up,
                                   ConstTensor dy, Tensor dgate, Tensor dup,
                                   Stream& stream) {
  CudaStream& s = Of(stream);
  s.Check(cuda::SiluMulBackward(RowsOf(gate), RowsOf(up), RowsOf(dy),
                                RowsOf(dgate), RowsOf(dup), s.get()),
          "gradients of SwiGLU");
}

void CudaTrainOps::EmbedBackward(std::span<const Token> tokens, ConstTensor dy,
                                 Tensor dtable, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const TokenRows grouped = GroupByToken(tokens);
  const int32_t* const ids = s.Upload(grouped.tokens);
  const int32_t* const begins = s.Upload(grouped.begins);
  const int32_t* const rows = s.Upload(grouped.rows);
  if (!s.ok()) return;
  s.Check(cuda::EmbedBackward(ids, begins,
                              static_cast<int64_t>(grouped.tokens.size()), rows,
                              RowsOf(dy), RowsOf(dtable), s.get()),
          "the gradient of the embedding");
}

void CudaTrainOps::AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                                 Stream& stream) {
  CudaStream& s = Of(stream);
  const Rows<const float> factors =
      b.data == nullptr ? Rows<const float>() : RowsOf(b);
  s.Check(cuda::AddColumnDots(RowsOf(a), factors, nullptr, out, s.get()),
          "sums over tokens");
}

void CudaTrainOps::Dropout(ConstTensor x, const DropoutKey& key,
                           bool accumulate, Tensor y, Stream& stream) {
  CHECK(key.rate >= 0 && key.rate < 1);
  CudaStream& s = Of(stream);
  const DropoutArgs args{
      .seed = key.seed,
      .stream = key.stream,
      .limit = static_cast<int64_t>(std::ceil(key.rate * 0x1.0p24f)),
      .keep = 1.0f / (1.0f - key.rate),
      .accumulate = accumulate ? 1 : 0};
  s.Check(cuda::Dropout(RowsOf(x), args, RowsOf(y), s.get()), "dropout");
}

void CudaTrainOps::CrossEntropy(Tensor logits, std::span<const Token> targets,
                                float gradient_scale, std::span<TokenLoss> out,
                                Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int32_t* const ids = s.Upload(targets);
  RowLoss* const losses = s.ScratchOf<RowLoss>(logits.rows);
  if (!s.ok()) return;
  s.Check(
      cuda::CrossEntropy(RowsOf(logits), ids, gradient_scale, losses, s.get()),
      "cross entropy");
  std::vector<Token> wanted(targets.begin(), targets.end());
  DownloadAs(losses, out.size(), s,
             [out, wanted](const std::vector<RowLoss>& values) {
               for (size_t i = 0; i < values.size(); ++i) {
                 out[i] = {values[i].loss, values[i].largest == wanted[i]};
               }
             });
}

void CudaTrainOps::SumOfSquares(std::span<const float> x, double* out,
                                Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  *out = 0;
  const int64_t count = static_cast<int64_t>(x.size());
  const int64_t tiles = (count + kSquaresTile - 1) / kSquaresTile;
  double* const sums = s.ScratchOf<double>(tiles);
  if (!s.ok()) return;
  s.Check(TileSquares(x.data(), count, sums, s.get()), "squares");
  DownloadAs(sums, static_cast<size_t>(tiles), s,
             [out](const std::vector<double>& values) {
               *out = std::accumulate(values.begin(), values.end(), 0.0);
             });
}

void CudaTrainOps::AdamW(const AdamWStep& step, std::span<const float> gradient,
                         std::span<float> parameter, std::span<float> m,
                         std::span<float> v, Stream& stream) {
  const double t = static_cast<double>(step.step);
  const double lr = static_cast<double>(step.learning_rate);
  const double beta1 = static_cast<double>(step.beta1);
  const double beta2 = static_cast<double>(step.beta2);
  const AdamWArgs args{
      .decay =
          static_cast<float>(1 - lr * static_cast<double>(step.weight_decay)),
      .beta1 = step.beta1,
      .beta2 = step.beta2,
      .rate = static_cast<float>(lr / (1 - std::pow(beta1, t))),
      .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, t))),
      .eps = step.eps,
      .gradient_scale = step.gradient_scale};
  CudaStream& s = Of(stream);
  s.Check(cuda::AdamW(args, gradient.data(), parameter.data(), m.data(),
                      v.data(), static_cast<int64_t>(gradient.size()), s.get()),
          "AdamW");
}

}  // namespace lorikeet::cuda
