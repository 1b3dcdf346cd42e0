#include "cli/adapter_merge.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/merged_checkpoint.h"
#include "adapters/peft_reader.h"
#include "base/file_system.h"
#include "base/status.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "cli/offline_error.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/model.h"

namespace lorikeet {
namespace {

struct Flags {
  std::string model_dir;
  std::vector<std::string> adapters;
  std::vector<float> scales;
  std::string output;
  std::string dtype = "auto";
};

absl::Status Merge(const Flags& flags) {
  if (!flags.scales.empty() && flags.scales.size() != flags.adapters.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--scale is given ", flags.scales.size(),
                     " times, --adapter ", flags.adapters.size(), " times"));
  }
  PosixFileSystem fs;
  ThreadPool threads(1);
  const std::unique_ptr<Ops> ops = NewCpuOps(threads);
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> model,
                   Model::Load(fs, flags.model_dir, *ops, {}));
  const BaseWeights base(*model, *ops);
  std::vector<std::shared_ptr<const AdapterWeights>> weights;
  std::vector<MergeAdapter> adapters;
  for (size_t i = 0; i < flags.adapters.size(); ++i) {
    absl::StatusOr<std::shared_ptr<const AdapterWeights>> read =
        ReadPeftAdapter(fs, flags.adapters[i], model->config(), PeftLimits(),
                        std::nullopt, &base);
    if (!read.ok()) return Annotate(read.status(), flags.adapters[i]);
    weights.push_back(*std::move(read));
    adapters.push_back(
        {weights.back().get(), flags.scales.empty() ? 1 : flags.scales[i]});
  }
  return WriteMergedCheckpoint(fs, base, *ops, adapters,
                               ParseDType(flags.dtype), flags.output);
}

}  // namespace

void AddAdapterMergeCommand(CLI::App& adapter_app, int* exit_code) {
  CLI::App* command = adapter_app.add_subcommand(
      "merge", "Write a base model with adapters merged in, offline");
  command->footer(
      "Examples:\n"
      "  lorikeet adapter merge --model demo/base --adapter "
      "demo/adapters/reverse --output /tmp/reverse\n"
      "\nThe output is a Hugging Face directory. Several --adapter are summed, "
      "each with its --scale.\nOf a tied base whose two ends an adapter "
      "changes "
      "in different ways lm_head gets a tensor of its own.");
  const auto flags = std::make_shared<Flags>();
  command->add_option("--model,-m", flags->model_dir, "Base model")
      ->type_name("DIR")
      ->required();
  command->add_option("--adapter", flags->adapters, "PEFT directory")
      ->type_name("DIR")
      ->allow_extra_args(false)
      ->required();
  command
      ->add_option("--scale", flags->scales,
                   "Strength of each --adapter, by default 1")
      ->allow_extra_args(false)
      ->check(CLI::Range(-100.0, 100.0));
  command
      ->add_option("--output", flags->output, "A directory that is not there")
      ->type_name("DIR")
      ->required();
  command
      ->add_option("--dtype", flags->dtype,
                   "Type of the merged tensors; auto = as in the base")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command->callback(
      [flags, exit_code] { ReportOfflineError(Merge(*flags), exit_code); });
}

}  // namespace lorikeet
