#include "cli/merged.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/adapter_format.h"
#include "cli/channel.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "A merged variant is an adapter with its linears merged into a copy of the "
    "base's; see\n`lorikeet serve --help`, --merge and --max-merged.\n"
    "\nExamples:\n"
    "  lorikeet merged\n"
    "  lorikeet merged --verify-base   # reads every base weight in memory\n";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
  bool verify_base = false;
};

absl::Duration Time(const google::protobuf::Duration& d) {
  return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
}

std::string NamesOf(const v1::MergedVariant& variant) {
  std::string names;
  for (int i = 0; i < variant.adapters_size(); ++i) {
    absl::StrAppend(&names, names.empty() ? "" : " + ", variant.adapters(i));
    const float scale = variant.scales(i);
    if (scale != 1) absl::StrAppend(&names, " x ", scale);
  }
  return names;
}

std::string StateOf(const v1::MergedVariant& variant) {
  switch (variant.state()) {
    case v1::MergedVariant::STATE_WAITING:
      return "waiting";
    case v1::MergedVariant::STATE_MERGING:
      return "merging";
    case v1::MergedVariant::STATE_MERGED:
      return "merged";
    default:
      return "";
  }
}

std::string ToTable(const v1::MergeState& state) {
  std::string out = absl::StrCat("Policy ", state.policy(), ", at most ",
                                 state.max_merged(), " merged at once.\n");
  Table variants({{"VARIANT"},
                  {"STATE"},
                  {"SIZE", Table::Align::kRight},
                  {"REQUESTS", Table::Align::kRight}});
  for (const v1::MergedVariant& v : state.variants()) {
    variants.AddRow({NamesOf(v), StateOf(v), HumanBytes(v.bytes()),
                     absl::StrCat(v.requests())});
  }
  if (variants.num_rows() > 0) absl::StrAppend(&out, "\n", variants.ToString());
  Table choices({{"ADAPTER"},
                 {"NEW REQUESTS"},
                 {"WHY"},
                 {"ROWS", Table::Align::kRight},
                 {"OTHERS", Table::Align::kRight},
                 {"UNMERGED", Table::Align::kRight},
                 {"MERGED", Table::Align::kRight}});
  for (const v1::MergeChoice& c : state.choices()) {
    choices.AddRow({c.adapter(), c.merged() ? "merged" : "unmerged", c.reason(),
                    Fixed(c.rows(), 1), Fixed(c.other_rows(), 1),
                    HumanDuration(Time(c.unmerged_step())),
                    HumanDuration(Time(c.merged_step()))});
  }
  if (choices.num_rows() > 0) absl::StrAppend(&out, "\n", choices.ToString());
  return out;
}

std::string ToTable(const v1::VerifyBaseResponse& r) {
  return absl::StrCat(
      r.intact() ? "The base is intact" : "THE BASE HAS CHANGED", ": checksum ",
      r.checksum(), r.intact() ? "" : ", expected ",
      r.intact() ? "" : r.expected_checksum(), " over ", HumanBytes(r.bytes()),
      " in ", HumanDuration(Time(r.duration())), "; ", r.failures(), " of ",
      r.passes(), " passes failed.\n");
}

template <typename Message>
void Show(const Flags& flags, const Message& message) {
  Print(flags.output == OutputFormat::kJson ? MessageToJson(message)
                                            : ToTable(message));
}

absl::Status RunMerged(const Flags& flags) {
  RpcClient client(flags.server);
  if (!flags.verify_base) {
    ASSIGN_OR_RETURN(const v1::MergeState state, client.GetMergeState());
    Show(flags, state);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const v1::VerifyBaseResponse response, client.VerifyBase());
  Show(flags, response);
  if (response.intact()) return absl::OkStatus();
  return absl::DataLossError("the base weights in memory have changed");
}

}  // namespace

void AddMergedCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand(
      "merged", "Show what a server has merged and why; check its base");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  command->add_flag("--verify-base", flags->verify_base,
                    "Compare the base weights in memory with those of the load "
                    "instead; fails if they differ");
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->callback(
      [flags, exit_code] { *exit_code = ReportError(RunMerged(*flags)); });
}

}  // namespace lorikeet
