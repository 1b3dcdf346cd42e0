#include "cli/adapter_verify.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "adapters/adapter_weights.h"
#include "adapters/int8_error.h"
#include "adapters/peft_reader.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/offline_error.h"
#include "cli/table.h"
#include "model/config.h"

namespace lorikeet {
namespace {

struct Flags {
  std::string dir;
  std::string model_dir;
  OutputFormat output = OutputFormat::kTable;
  int64_t max_rank = PeftLimits().max_rank;
  std::string adapter_dtype = "auto";
};

std::string Shape(ConstTensor t) { return absl::StrCat(t.rows, " x ", t.cols); }

std::string ToText(const AdapterWeights& weights,
                   const std::optional<Int8Error>& int8) {
  Table table({{"MODULE"},
               {"RANK", Table::Align::kRight},
               {"SCALING", Table::Align::kRight},
               {"A", Table::Align::kRight},
               {"B", Table::Align::kRight},
               {"DTYPE"}});
  for (const LoraModule& m : weights.modules) {
    const std::string dtypes =
        m.a.dtype == m.b.dtype
            ? Name(m.a.dtype)
            : absl::StrCat(Name(m.a.dtype), "/", Name(m.b.dtype));
    table.AddRow({m.name, absl::StrCat(m.rank),
                  absl::StrFormat("%g", m.scaling), Shape(m.a), Shape(m.b),
                  dtypes});
  }
  return absl::StrCat(table.ToString(), "\n", weights.modules.size(),
                      " modules, ", weights.num_parameters, " parameters, ",
                      HumanBytes(static_cast<uint64_t>(weights.size_bytes)),
                      ", max rank ", weights.max_rank,
                      weights.features.is_plain() ? "" : "\nwith ",
                      absl::StrJoin(weights.features.keys, ", "), "\ndigest ",
                      weights.digest.ToHex(), "\n",
                      int8.has_value() ? DescribeInt8Error(*int8) + "\n" : "");
}

std::string ToJson(const AdapterWeights& weights,
                   const std::optional<Int8Error>& int8) {
  Json json = Json::Object();
  json.Set("digest", weights.digest.ToHex());
  json.Set("rank", weights.max_rank);
  json.Set("alpha", weights.alpha);
  json.Set("use_rslora", weights.use_rslora);
  Json features = Json::Array();
  for (const std::string& key : weights.features.keys) features.Append(key);
  json.Set("features", std::move(features));
  json.Set("num_parameters", weights.num_parameters);
  json.Set("size_bytes", weights.size_bytes);
  Json modules = Json::Array();
  for (const LoraModule& m : weights.modules) {
    Json row = Json::Object();
    row.Set("module", m.name);
    row.Set("rank", m.rank);
    row.Set("scaling", m.scaling);
    row.Set("dtype_a", Name(m.a.dtype));
    row.Set("dtype_b", Name(m.b.dtype));
    modules.Append(std::move(row));
  }
  json.Set("modules", std::move(modules));
  Json warnings = Json::Array();
  for (const std::string& w : weights.warnings) warnings.Append(w);
  json.Set("warnings", std::move(warnings));
  if (int8.has_value()) {
    Json error = Json::Object();
    error.Set("overall", int8->overall);
    error.Set("worst", int8->worst);
    error.Set("worst_module", int8->worst_module);
    json.Set("int8_error", std::move(error));
  }
  return json.Dump(2) + "\n";
}

absl::Status Verify(const Flags& flags) {
  PosixFileSystem fs;
  constexpr uint64_t kMaxConfigBytes = 4 << 20;
  ASSIGN_OR_RETURN(
      const std::string text,
      fs.ReadFile(JoinPath(flags.model_dir, "config.json"), kMaxConfigBytes));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfig::Parse(text));
  PeftLimits limits;
  limits.max_rank = flags.max_rank;
  const std::optional<DType> dtype = ParseDType(flags.adapter_dtype);
  ASSIGN_OR_RETURN(const std::shared_ptr<const AdapterWeights> weights,
                   ReadPeftAdapter(fs, flags.dir, config, limits, dtype));
  std::optional<Int8Error> int8;
  if (dtype == DType::kI8) int8 = MeasureInt8Error(*weights);
  if (flags.output == OutputFormat::kJson) {
    Print(ToJson(*weights, int8));
    return absl::OkStatus();
  }
  Print(ToText(*weights, int8));
  for (const std::string& warning : weights->warnings) {
    std::fprintf(stderr, "warning: %s\n", Printable(warning).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddAdapterVerifyCommand(CLI::App& adapter_app, int* exit_code) {
  CLI::App* command = adapter_app.add_subcommand(
      "verify", "Check a PEFT directory against a base model, offline");
  command->footer(
      "Examples:\n"
      "  lorikeet adapter verify demo/adapters/reverse --model demo/base\n"
      "  lorikeet adapter verify demo/adapters/reverse --model demo/base "
      "--adapter-dtype int8\n"
      "\nExits with 1 and the reason if the adapter would be refused.");
  const auto flags = std::make_shared<Flags>();
  command->add_option("dir", flags->dir, "PEFT directory")
      ->type_name("DIR")
      ->required();
  command
      ->add_option("--model,-m", flags->model_dir,
                   "Base model; only its config.json is read")
      ->type_name("DIR")
      ->required();
  command
      ->add_option("--max-lora-rank", flags->max_rank,
                   "Largest rank that the server takes")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--adapter-dtype", flags->adapter_dtype,
                   "As the server's; with int8 the error that it makes is told")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16", "int8"}))
      ->capture_default_str();
  AddOutputFlag(*command, &flags->output);
  command->callback(
      [flags, exit_code] { ReportOfflineError(Verify(*flags), exit_code); });
}

}  // namespace lorikeet
