#include "server/engine/batch_builder.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lorikeet {

const StepInput& BatchBuilder::Build(const StepPlan& plan,
                                     const Scheduler& scheduler,
                                     const AdapterResidency& residency,
                                     const RequestTable& requests) {
  input_.Clear();
  samples_.clear();
  prompt_rows_.clear();
  copies_.clear();
  Sort(plan, residency, requests);
  for (const Item& item : items_) {
    const int32_t row_begin = static_cast<int32_t>(input_.tokens.size());
    AddRows(item);
    AddLogits(item, row_begin, scheduler);
  }
  input_.block_copies = plan.block_copies;
  return input_;
}

void BatchBuilder::Sort(const StepPlan& plan, const AdapterResidency& residency,
                        const RequestTable& requests) {
  items_.clear();
  slots_.clear();
  for (const PlannedSequence& planned : plan.sequences) {
    Item item;
    item.planned = &planned;
    item.request = requests.at(planned.request).get();
    item.group = SIZE_MAX;
    if (item.request->request.adapter != nullptr) {
      item.slot = residency.SlotOf(item.request->request.adapter->key);
      const auto it = std::ranges::find(slots_, item.slot);
      item.group = static_cast<size_t>(it - slots_.begin());
      if (it == slots_.end()) slots_.push_back(item.slot);
    }
    items_.push_back(item);
  }
  std::ranges::stable_sort(items_, std::less<>(), &Item::group);
}

void BatchBuilder::AddRows(const Item& item) {
  const PlannedSequence& planned = *item.planned;
  SequenceRows rows;
  rows.row_begin = static_cast<int32_t>(input_.tokens.size());
  rows.row_end = rows.row_begin + planned.end - planned.begin;
  rows.first_position = planned.begin;
  rows.block_table = planned.block_table;
  input_.sequences.push_back(rows);
  input_.tokens.insert(input_.tokens.end(), planned.tokens.begin(),
                       planned.tokens.end());
  if (item.slot == nullptr) return;
  std::vector<LoraSegment>& segments = input_.lora.segments;
  if (!segments.empty() && segments.back().terms[0].slot == item.slot) {
    segments.back().row_end = rows.row_end;
  } else {
    segments.push_back(
        {rows.row_begin, rows.row_end, {LoraTerm{item.slot, 1}}});
  }
}

void BatchBuilder::AddLogits(const Item& item, int32_t row_begin,
                             const Scheduler& scheduler) {
  const PlannedSequence& planned = *item.planned;
  const int32_t num_rows = planned.end - planned.begin;
  const int32_t first_logits = static_cast<int32_t>(input_.logit_rows.size());
  if (planned.all_logits) {
    for (int32_t i = 0; i < num_rows; ++i) {
      input_.logit_rows.push_back(row_begin + i);
    }
    // The last position of the prompt has no next token in it.
    const std::vector<Token>& prompt = item.request->request.prompt;
    const int32_t count =
        std::min(planned.end, static_cast<int32_t>(prompt.size()) - 1) -
        planned.begin;
    if (count > 0) {
      input_.logprobs.push_back(
          {first_logits,
           std::span(prompt).subspan(static_cast<size_t>(planned.begin) + 1,
                                     static_cast<size_t>(count)),
           item.request->request.output.num_prompt_logprobs});
      prompt_rows_.push_back({item.request, planned.begin, count});
    }
  } else if (planned.samples) {
    input_.logit_rows.push_back(row_begin + num_rows - 1);
  }
  if (planned.samples) {
    AddSamples(item, static_cast<int32_t>(input_.logit_rows.size()) - 1,
               scheduler);
  }
}

void BatchBuilder::AddSamples(const Item& item, int32_t logits,
                              const Scheduler& scheduler) {
  RequestState* request = item.request;
  const auto add = [&](SequenceId sequence, int32_t candidate) {
    input_.sampled.push_back(logits);
    input_.sampling.push_back(request->NextSampling(candidate));
    samples_.push_back({sequence, request, candidate});
  };
  if (request->has_forked) {
    add(item.planned->sequence, item.planned->candidate);
    return;
  }
  // The prompt is complete: every candidate draws its first token from it.
  if (request->request.output.return_logits) {
    input_.copies.push_back(logits);
    copies_.push_back(request);
  }
  const std::vector<SequenceId> ids = scheduler.SequencesOf(request->id);
  for (size_t c = 0; c < ids.size(); ++c) {
    add(ids[c], static_cast<int32_t>(c));
  }
}

}  // namespace lorikeet
