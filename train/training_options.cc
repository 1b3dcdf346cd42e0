#include "train/training_options.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "train/trainer.h"

namespace lorikeet {
namespace {

constexpr int64_t kMaxRank = 4096;
constexpr int64_t kMaxCount = int64_t{1} << 40;
constexpr int64_t kMaxBudget = 1 << 20;

absl::Status OutOfRange(const char* option, const std::string& value,
                        const std::string& limits) {
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, ", expected ", limits));
}

absl::Status CheckInt(const char* option, int64_t value, int64_t min,
                      int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return OutOfRange(option, absl::StrCat(value),
                    absl::StrCat("an integer in [", min, ", ", max, "]"));
}

// In [min, max), or (min, max) if `is_open`.
absl::Status CheckDouble(const char* option, double value, double min,
                         double max, bool is_open) {
  if (value < max && (is_open ? value > min : value >= min)) {
    return absl::OkStatus();
  }
  return OutOfRange(
      option, absl::StrCat(value),
      absl::StrCat("a number in ", is_open ? "(" : "[", min, ", ", max, ")"));
}

const char* NameOf(Schedule::Decay decay) {
  return decay == Schedule::Decay::kLinear ? "linear" : "cosine";
}

}  // namespace

absl::Status TrainingOptions::Check() const {
  RETURN_IF_ERROR(CheckInt("--rank", rank, 1, kMaxRank));
  RETURN_IF_ERROR(CheckDouble("--alpha", alpha, 0, 1e6, true));
  RETURN_IF_ERROR(CheckDouble("--dropout", dropout, 0, 1, false));
  RETURN_IF_ERROR(CheckDouble("--learning-rate", learning_rate, 0, 10, true));
  RETURN_IF_ERROR(CheckInt("--warmup-steps", warmup_steps, 0, kMaxCount));
  RETURN_IF_ERROR(CheckDouble("--weight-decay", weight_decay, 0, 10, false));
  RETURN_IF_ERROR(CheckDouble("--clip-norm", clip_norm, 0, 1e9, false));
  RETURN_IF_ERROR(CheckInt("--batch-size", batch_size, 1, kMaxBatchesOfStep));
  RETURN_IF_ERROR(CheckInt("--gradient-accumulation", gradient_accumulation, 1,
                           kMaxBatchesOfStep));
  // A batch has an example at least.
  RETURN_IF_ERROR(CheckInt("--batch-size times --gradient-accumulation",
                           examples_per_step(), 1, kMaxBatchesOfStep));
  RETURN_IF_ERROR(CheckInt("--token-budget", token_budget, 2, kMaxBudget));
  RETURN_IF_ERROR(CheckInt("--steps", steps, 0, kMaxCount));
  RETURN_IF_ERROR(CheckInt("--epochs", epochs, 0, kMaxCount));
  if ((steps > 0) == (epochs > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("--steps is ", steps,
                                                   " and --epochs ", epochs,
                                                   ", expected one of them"));
  }
  if (steps > 0 && warmup_steps >= steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("--warmup-steps is ", warmup_steps,
                     ", expected fewer than the ", steps, " steps of the job"));
  }
  if (method == TrainingMethod::kLora && target_modules.empty()) {
    return absl::InvalidArgumentError("--target-modules is empty");
  }
  return absl::OkStatus();
}

PeftConfig TrainingOptions::Peft() const {
  PeftConfig peft;
  peft.r = rank;
  peft.lora_alpha = alpha;
  peft.use_rslora = use_rslora;
  peft.use_dora = use_dora;
  ModuleChoice choice;
  if (target_modules.size() == 1 &&
      absl::AsciiStrToLower(target_modules[0]) == "all-linear") {
    choice.regex = "all-linear";
  } else {
    choice.names = target_modules;
  }
  peft.target_modules = std::move(choice);
  return peft;
}

Json TrainingOptions::ToJson() const {
  Json json = Json::Object();
  json.Set("method", method == TrainingMethod::kLora ? "lora" : "full");
  if (method == TrainingMethod::kLora) {
    json.Set("rank", rank);
    json.Set("alpha", alpha);
    Json modules = Json::Array();
    for (const std::string& name : target_modules) modules.Append(name);
    json.Set("target_modules", std::move(modules));
    json.Set("rslora", use_rslora);
    json.Set("dora", use_dora);
    json.Set("dropout", dropout);
  }
  json.Set("learning_rate", learning_rate);
  json.Set("warmup_steps", warmup_steps);
  json.Set("schedule", NameOf(decay));
  json.Set("weight_decay", weight_decay);
  json.Set("clip_norm", clip_norm);
  json.Set("batch_size", batch_size);
  json.Set("gradient_accumulation", gradient_accumulation);
  json.Set("token_budget", token_budget);
  json.Set("steps", steps);
  json.Set("epochs", epochs);
  json.Set("seed", seed);
  json.Set("compute_dtype", Name(compute_dtype));
  json.Set("loss_on", learn_all ? "all" : "completion");
  return json;
}

}  // namespace lorikeet
