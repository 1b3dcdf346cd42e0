#include "train/training_options.h"

#include <cmath>
#include <limits>

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
  // As JSON has integers, so that a record says it exactly.
  if (seed > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return absl::InvalidArgumentError(
        absl::StrCat("--seed is ", seed, ", expected an integer in [0, ",
                     std::numeric_limits<int64_t>::max(), "]"));
  }
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

absl::StatusOr<TrainingOptions> TrainingOptions::FromJson(const Json& json) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("training options are no object");
  }
  constexpr double kAny = std::numeric_limits<double>::max();
  constexpr int64_t kAnyInt = std::numeric_limits<int64_t>::max();
  JsonReader in(json, "training options");
  TrainingOptions o;
  ASSIGN_OR_RETURN(const std::string method, in.String("method", "lora"));
  if (method == "full") o.method = TrainingMethod::kFull;
  ASSIGN_OR_RETURN(o.rank, in.Int("rank", o.rank, 0, kAnyInt));
  ASSIGN_OR_RETURN(o.alpha, in.Double("alpha", o.alpha, -kAny, kAny));
  if (const Json* modules = in.Get("target_modules")) {
    o.target_modules.clear();
    if (!modules->is_array()) {
      return in.Error("target_modules", "is no list");
    }
    for (const Json& name : modules->items()) {
      if (!name.is_string()) return in.Error("target_modules", "has no names");
      o.target_modules.push_back(name.AsString());
    }
  }
  ASSIGN_OR_RETURN(o.use_rslora, in.Bool("rslora", o.use_rslora));
  ASSIGN_OR_RETURN(o.use_dora, in.Bool("dora", o.use_dora));
  ASSIGN_OR_RETURN(o.dropout, in.Double("dropout", o.dropout, 0, kAny));
  ASSIGN_OR_RETURN(o.learning_rate,
                   in.Double("learning_rate", o.learning_rate, -kAny, kAny));
  ASSIGN_OR_RETURN(o.warmup_steps,
                   in.Int("warmup_steps", o.warmup_steps, 0, kAnyInt));
  ASSIGN_OR_RETURN(const std::string decay,
                   in.String("schedule", NameOf(o.decay)));
  o.decay =
      decay == "cosine" ? Schedule::Decay::kCosine : Schedule::Decay::kLinear;
  ASSIGN_OR_RETURN(o.weight_decay,
                   in.Double("weight_decay", o.weight_decay, 0, kAny));
  ASSIGN_OR_RETURN(o.clip_norm, in.Double("clip_norm", o.clip_norm, 0, kAny));
  ASSIGN_OR_RETURN(o.batch_size,
                   in.Int("batch_size", o.batch_size, 0, kAnyInt));
  ASSIGN_OR_RETURN(
      o.gradient_accumulation,
      in.Int("gradient_accumulation", o.gradient_accumulation, 0, kAnyInt));
  ASSIGN_OR_RETURN(o.token_budget,
                   in.Int("token_budget", o.token_budget, 0, kAnyInt));
  ASSIGN_OR_RETURN(o.steps, in.Int("steps", o.steps, 0, kAnyInt));
  ASSIGN_OR_RETURN(o.epochs, in.Int("epochs", o.epochs, 0, kAnyInt));
  ASSIGN_OR_RETURN(const int64_t seed, in.Int("seed", 0, 0, kAnyInt));
  o.seed = static_cast<uint64_t>(seed);
  ASSIGN_OR_RETURN(const std::string compute,
                   in.String("compute_dtype", "f32"));
  if (compute == Name(DType::kBF16)) o.compute_dtype = DType::kBF16;
  ASSIGN_OR_RETURN(const std::string loss_on,
                   in.String("loss_on", "completion"));
  o.learn_all = loss_on == "all";
  return o;
}

}  // namespace lorikeet
