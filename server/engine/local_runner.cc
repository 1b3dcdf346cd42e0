#include "server/engine/local_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"

namespace lorikeet {

LocalRunner::LocalRunner(const Model& model, Ops& ops, KvPool pool)
    : model_(model),
      ops_(ops),
      pool_(std::move(pool)),
      forward_(model, ops, pool_),
      stream_(ops.NewStream()) {}

LocalRunner::~LocalRunner() {
  if (ops_.is_on_host()) return;
  Log(LogLevel::kInfo, "steps on the device",
      {{"steps", absl::StrCat(last_ticket_)},
       {"graph_launches", absl::StrCat(ops_.num_graph_launches())}});
}

StepTicket LocalRunner::Submit(const StepInput& input) {
  ForwardBatch batch;
  batch.tokens = input.tokens;
  batch.sequences = input.sequences;
  batch.lora = input.lora;
  batch.block_copies = input.block_copies;
  batch.logit_rows = input.logit_rows;
  const Tensor logits = forward_.Run(batch, *stream_);
  result_ = StepResult();
  result_.status = forward_.status();
  if (result_.status.ok()) ReadLogits(input, logits);
  if (result_.status.ok()) Sample(input, logits);  // last: may overwrite them
  result_.status.Update(stream_->Sync());
  return StepTicket{++last_ticket_};
}

StepResult LocalRunner::Wait(StepTicket ticket) {
  CHECK_EQ(ticket.number, last_ticket_);
  return std::move(result_);
}

Tensor LocalRunner::Scratch(std::unique_ptr<Memory>* memory, int64_t rows,
                            int64_t cols) {
  const int64_t needed = rows * cols * static_cast<int64_t>(sizeof(float));
  if (*memory == nullptr || (*memory)->size_bytes() < needed) {
    absl::StatusOr<std::unique_ptr<Memory>> fresh = ops_.Allocate(needed);
    result_.status.Update(fresh.status());
    if (!fresh.ok()) return Tensor::F32(nullptr, 0, cols);
    *memory = *std::move(fresh);
  }
  return Tensor::F32(static_cast<float*>((*memory)->data()), rows, cols);
}

void LocalRunner::ReadLogits(const StepInput& input, Tensor logits) {
  size_t count = 0;
  for (const StepInput::LogprobRows& rows : input.logprobs) {
    count += rows.targets.size();
  }
  result_.logprobs.resize(count);
  std::span<SampledRow> out(result_.logprobs);
  for (const StepInput::LogprobRows& rows : input.logprobs) {
    const size_t n = rows.targets.size();
    ops_.Logprobs(logits.Rows(rows.first, static_cast<int64_t>(n)),
                  rows.targets, rows.num_logprobs, out.first(n), *stream_);
    out = out.subspan(n);
  }
  if (input.copies.empty()) return;
  const int64_t vocab = logits.cols;
  result_.copies.resize(input.copies.size() * static_cast<size_t>(vocab));
  const int64_t rows = static_cast<int64_t>(input.copies.size());
  const Tensor copied = Scratch(&copied_, rows, vocab);
  if (copied.rows == 0) return;
  ops_.GatherRows(logits, input.copies, copied, *stream_);
  ops_.CopyOut(copied.data, result_.copies.data(),
               rows * vocab * static_cast<int64_t>(sizeof(float)), *stream_);
}

void LocalRunner::Sample(const StepInput& input, Tensor logits) {
  const int64_t rows = static_cast<int64_t>(input.sampling.size());
  if (rows == 0) return;
  result_.sampled.resize(input.sampling.size());
  // Usually every row of logits is sampled, once.
  const bool is_all = std::ranges::equal(
      input.sampled, input.logit_rows,
      [i = 0](int32_t index, int32_t) mutable { return index == i++; });
  Tensor sampled = logits;
  if (!is_all) {
    sampled = Scratch(&gathered_, rows, logits.cols);
    if (sampled.rows == 0) return;
    ops_.GatherRows(logits, input.sampled, sampled, *stream_);
  }
  ops_.Sample(sampled, input.sampling, result_.sampled, *stream_);
}

}  // namespace lorikeet
