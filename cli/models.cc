#include "cli/models.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/status.h"
#include "cli/channel.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "Each id may stand in `lorikeet generate --task ID`.\n"
    "\nExamples:\n"
    "  lorikeet models\n"
    "  lorikeet models --output json | jq -r '.models[].id'\n";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
};

std::string TimeText(int64_t unix_seconds) {
  if (unix_seconds == 0) return "";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S",
                          absl::FromUnixSeconds(unix_seconds),
                          absl::LocalTimeZone());
}

std::string ToJson(const v1::ListModelsResponse& response) {
  Json models = Json::Array();
  for (const v1::Model& model : response.models()) {
    Json entry = Json::Object();
    entry.Set("id", model.id());
    entry.Set("kind", model.parent().empty() ? "base" : "adapter");
    entry.Set("root", model.root());
    entry.Set("parent", model.parent());
    entry.Set("max_model_len", model.max_model_len());
    entry.Set("create_unix_seconds", model.create_unix_seconds());
    models.Append(std::move(entry));
  }
  Json out = Json::Object();
  out.Set("models", std::move(models));
  return absl::StrCat(out.Dump(2), "\n");
}

std::string ToTable(const v1::ListModelsResponse& response) {
  Table table({{"ID"},
               {"KIND"},
               {"MAX TOKENS", Table::Align::kRight},
               {"CREATED"},
               {"SOURCE"}});
  for (const v1::Model& model : response.models()) {
    table.AddRow({model.id(), model.parent().empty() ? "base" : "adapter",
                  absl::StrCat(model.max_model_len()),
                  TimeText(model.create_unix_seconds()), model.root()});
  }
  return table.ToString();
}

absl::Status RunModels(const Flags& flags) {
  RpcClient client(flags.server);
  ASSIGN_OR_RETURN(const v1::ListModelsResponse response, client.ListModels());
  Print(flags.output == OutputFormat::kJson ? ToJson(response)
                                            : ToTable(response));
  return absl::OkStatus();
}

}  // namespace

void AddModelsCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand(
      "models", "List the base model and the adapters of a server");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->callback(
      [flags, exit_code] { *exit_code = ReportError(RunModels(*flags)); });
}

}  // namespace lorikeet
