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
  last_group_ = kBase;
  Sort(plan, residency, requests);
  for (const Item& item : items_) {
    const int32_t row_begin = static_cast<int32_t>(input_.tokens.size());
    AddRows(item);
    AddLogits(item, row_begin, scheduler);
  }
  input_.block_copies = plan.block_copies;
  return input_;
}

size_t BatchBuilder::GroupOf(const RequestState& request,
                             const AdapterResidency& residency) {
  std::vector<LoraTerm> terms;
  for (const RequestAdapter& adapter : request.request.adapters) {
    terms.push_back({residency.SlotOf(adapter.version->key), adapter.scale});
  }
  const auto it = std::ranges::find(terms_, terms);
  const size_t group = static_cast<size_t>(it - terms_.begin());
  if (it == terms_.end()) terms_.push_back(std::move(terms));
  return group;
}

void BatchBuilder::Sort(const StepPlan& plan, const AdapterResidency& residency,
                        const RequestTable& requests) {
  items_.clear();
  terms_.clear();
  for (const PlannedSequence& planned : plan.sequences) {
    Item item;
    item.planned = &planned;
    item.request = requests.at(planned.request).get();
    // Also before the position where they act: the next step may reach it.
    if (!item.request->needed.empty()) {
      item.group = GroupOf(*item.request, residency);
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
  if (item.group != kBase) AddSegment(item, rows);
}

void BatchBuilder::AddSegment(const Item& item, const SequenceRows& rows) {
  const int32_t skipped =
      std::max(0, item.request->adapters_from - rows.first_position);
  if (skipped >= rows.row_end - rows.row_begin) return;
  const int32_t begin = rows.row_begin + skipped;
  std::vector<LoraSegment>& segments = input_.lora.segments;
  if (item.group == last_group_ && segments.back().row_end == begin) {
    segments.back().row_end = rows.row_end;
  } else {
    segments.push_back({begin, rows.row_end, terms_[item.group]});
  }
  last_group_ = item.group;
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
