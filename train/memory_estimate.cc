#include "train/memory_estimate.h"

#include "absl/strings/str_join.h"
#include "adapters/base_parameters.h"
#include "adapters/target_modules.h"
#include "base/status.h"
#include "kernels/block_int8.h"

namespace lorikeet {
namespace {

constexpr int64_t kFloatBytes = 4;

// A tied lm_head is the embedding once more.
bool IsCounted(const BaseParameter& parameter, const ModelConfig& config) {
  return !(config.tie_word_embeddings &&
           parameter.kind == BaseParameter::Kind::kWeight &&
           parameter.linear == LinearId::LmHead());
}

// Of a parameter as the base keeps it: vectors are f32.
int64_t BytesOf(const BaseParameter& parameter, DType dtype) {
  const int64_t size = parameter.rows * parameter.cols;
  if (parameter.kind != BaseParameter::Kind::kWeight) {
    return size * kFloatBytes;
  }
  return dtype == DType::kI8 ? Int8Bytes(parameter.rows, parameter.cols)
                             : size * SizeBytes(dtype);
}

void AddOptimizer(MemoryEstimate* estimate, DType dtype) {
  estimate->gradient_bytes = estimate->trained_parameters * kFloatBytes;
  estimate->optimizer_bytes = 2 * estimate->trained_parameters * kFloatBytes;
  // What is trained is never stored in 8 bits.
  const int64_t bytes = dtype == DType::kI8 ? 2 : SizeBytes(dtype);
  estimate->checkpoint_bytes = estimate->trained_parameters * bytes;
}

}  // namespace

absl::StatusOr<MemoryEstimate> EstimateLora(const ModelConfig& config,
                                            const TrainingOptions& options,
                                            DType dtype) {
  ASSIGN_OR_RETURN(const TargetModules targets,
                   FindTargetModules(options.Peft(), config));
  if (!targets.warnings.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(targets.warnings, "; "));
  }
  MemoryEstimate estimate;
  for (const BaseParameter& parameter : BaseParameters(config)) {
    if (!IsCounted(parameter, config)) continue;
    estimate.parameters += parameter.rows * parameter.cols;
    estimate.weight_bytes += BytesOf(parameter, dtype);
  }
  for (const TargetModule& module : targets.modules) {
    estimate.trained_parameters +=
        options.rank * (module.in_dim + module.out_dim);
    if (options.use_dora) estimate.trained_parameters += module.out_dim;
  }
  estimate.trained_bytes = estimate.trained_parameters * kFloatBytes;
  AddOptimizer(&estimate, dtype);
  return estimate;
}

MemoryEstimate EstimateFull(const ModelConfig& config, DType dtype) {
  MemoryEstimate estimate;
  for (const BaseParameter& parameter : BaseParameters(config)) {
    if (!IsCounted(parameter, config)) continue;
    estimate.parameters += parameter.rows * parameter.cols;
  }
  estimate.trained_parameters = estimate.parameters;
  estimate.weight_bytes = estimate.parameters * kFloatBytes;
  AddOptimizer(&estimate, dtype);
  return estimate;
}

}  // namespace lorikeet
