// Sampling: parameters of all rows go to the device, tokens and logprobs come
// back with Sync.

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

// The parameters of all rows, lists one after the other.
struct SampleBatch {
  std::vector<SampleArgs> args;
  std::vector<int32_t> bias_tokens;
  std::vector<float> bias_values;
  std::vector<int2> counts;
  std::vector<int32_t> banned;
  std::vector<uint64_t> allowed;

  void Add(const SamplingRow& p) {
    SampleArgs a = {};
    a.temperature = p.temperature;
    a.top_p = p.top_p;
    a.min_p = p.min_p;
    a.repetition_penalty = p.repetition_penalty;
    a.presence_penalty = p.presence_penalty;
    a.frequency_penalty = p.frequency_penalty;
    a.top_k = p.top_k;
    a.seed = p.seed;
    a.candidate = p.candidate;
    a.output_position = p.output_position;
    a.bias_begin = static_cast<int32_t>(bias_tokens.size());
    for (const auto& [token, value] : p.logit_bias) {
      bias_tokens.push_back(token);
      bias_values.push_back(value);
    }
    a.bias_end = static_cast<int32_t>(bias_tokens.size());
    a.count_begin = static_cast<int32_t>(counts.size());
    for (const auto& [token, count] : p.token_counts) {
      counts.push_back({token, count});
    }
    a.count_end = static_cast<int32_t>(counts.size());
    a.banned_begin = static_cast<int32_t>(banned.size());
    banned.insert(banned.end(), p.banned.begin(), p.banned.end());
    a.banned_end = static_cast<int32_t>(banned.size());
    a.allowed_begin =
        p.allowed_bits.empty() ? -1 : static_cast<int32_t>(allowed.size());
    allowed.insert(allowed.end(), p.allowed_bits.begin(), p.allowed_bits.end());
    args.push_back(a);
  }
};

// Row i of `results` [rows, count + 1], as Logprobs left it, with at most
// `wanted` of the best.
void ReadLogprobs(const TopLogprob* results, size_t i, int32_t count,
                  int32_t wanted, SampledRow* out) {
  const TopLogprob* const row = results + i * static_cast<size_t>(count + 1);
  out->logprob = row[0].logprob;
  out->top.clear();
  for (int32_t n = 1; n <= std::min(count, wanted); ++n) {
    out->top.emplace_back(row[n].token, row[n].logprob);
  }
}

}  // namespace

void CudaOps::Sample(Tensor logits, std::span<const SamplingRow> params,
                     std::span<SampledRow> out, Stream& stream) {
  CHECK_EQ(static_cast<size_t>(logits.rows), params.size());
  CHECK_EQ(params.size(), out.size());
  if (logits.rows == 0) return;
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  SampleBatch batch;
  std::vector<int32_t> wanted;
  for (const SamplingRow& p : params) {
    batch.Add(p);
    wanted.push_back(p.num_logprobs);
  }
  const SampleArgs* const args = s.Upload(batch.args);
  SampleLists lists;
  lists.bias_tokens = s.Upload(batch.bias_tokens);
  lists.bias_values = s.Upload(batch.bias_values);
  lists.counts = s.Upload(batch.counts);
  lists.banned = s.Upload(batch.banned);
  lists.allowed = s.Upload(batch.allowed);
  int32_t* const tokens = s.ScratchOf<int32_t>(logits.rows);
  // Logprobs are of the logits before they are edited.
  const int32_t most = *std::ranges::max_element(wanted);
  const int32_t count =
      static_cast<int32_t>(std::min<int64_t>(std::max(most, 0), logits.cols));
  Rows<float> raw = RowsOf(logits);
  if (most >= 0) raw.data = s.ScratchOf<float>(raw.rows * raw.stride);
  if (!s.ok()) return;
  if (most >= 0) {
    s.Check(
        cuda::GatherRows(RowsOf(ConstTensor(logits)), nullptr, raw, s.get()),
        "copying logits");
  }
  s.Check(cuda::Sample(RowsOf(logits), args, lists, tokens, s.get()), "sample");
  s.Download(tokens, logits.rows * static_cast<int64_t>(sizeof(int32_t)),
             [out](const char* bytes) {
               for (size_t i = 0; i < out.size(); ++i) {
                 out[i].token = reinterpret_cast<const int32_t*>(bytes)[i];
                 out[i].logprob = 0;
                 out[i].top.clear();
               }
             });
  if (most < 0) return;
  TopLogprob* const results =
      s.ScratchOf<TopLogprob>(logits.rows * (count + 1));
  if (!s.ok()) return;
  s.Check(cuda::Logprobs(raw, tokens, count, results, s.get()), "logprobs");
  s.Download(
      results,
      logits.rows * (count + 1) * static_cast<int64_t>(sizeof(TopLogprob)),
      [out, count, wanted](const char* bytes) {
        const auto* const r = reinterpret_cast<const TopLogprob*>(bytes);
        for (size_t i = 0; i < out.size(); ++i) {
          if (wanted[i] < 0) continue;
          ReadLogprobs(r, i, count, wanted[i], &out[i]);
        }
      });
}

void CudaOps::Logprobs(ConstTensor logits, std::span<const Token> targets,
                       int32_t num_logprobs, std::span<SampledRow> out,
                       Stream& stream) {
  CHECK_EQ(static_cast<size_t>(logits.rows), targets.size());
  CHECK_EQ(targets.size(), out.size());
  if (logits.rows == 0) return;
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const int32_t count = static_cast<int32_t>(
      std::min<int64_t>(std::max(num_logprobs, 0), logits.cols));
  const int32_t* const tokens = s.Upload(targets);
  TopLogprob* const results =
      s.ScratchOf<TopLogprob>(logits.rows * (count + 1));
  if (!s.ok()) return;
  s.Check(cuda::Logprobs(RowsOf(logits), tokens, count, results, s.get()),
          "logprobs");
  s.Download(
      results,
      logits.rows * (count + 1) * static_cast<int64_t>(sizeof(TopLogprob)),
      [out, count](const char* bytes) {
        const auto* const r = reinterpret_cast<const TopLogprob*>(bytes);
        for (size_t i = 0; i < out.size(); ++i) {
          out[i].token = r[i * static_cast<size_t>(count + 1)].token;
          ReadLogprobs(r, i, count, count, &out[i]);
        }
      });
}

}  // namespace lorikeet::cuda
