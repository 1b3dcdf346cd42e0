#include "cli/adapter_alias.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
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

constexpr char kAliasFooter[] =
    "A request goes to one target, chosen by its routing key (without one by "
    "its id), so that\nthe same caller stays on the same version.\n"
    "--canary, --shadow and the rule change the alias as it is; TARGET and "
    "--split replace it.\n"
    "\nExamples:\n"
    "  lorikeet adapter alias cipher caesar@1\n"
    "  lorikeet adapter alias cipher --canary caesar@2=5 "
    "--max-error-rate 0.02\n"
    "  lorikeet adapter alias cipher --promote\n"
    "  lorikeet adapter alias cipher --rollback --reason 'worse answers'\n"
    "  lorikeet adapter alias cipher --shadow caesar@2=10\n"
    "  lorikeet adapter alias cipher --split caesar@1=70 --split caesar@2=30\n"
    "  lorikeet adapter alias\n"
    "  lorikeet adapter alias cipher --delete\n";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
  std::string name;
  std::string target;
  std::vector<std::string> split;
  std::string canary, shadow;
  double max_error_rate = -1;
  double max_latency_s = -1;
  double window_s = -1;
  uint32_t min_requests = 0;
  std::string promote;
  bool promotes = false;
  bool rolls_back = false;
  std::string reason;
  bool removes = false;
  std::string etag;
  int32_t limit = 20;

  bool has_rule() const {
    return max_error_rate >= 0 || max_latency_s >= 0 || window_s >= 0 ||
           min_requests > 0;
  }
  // Whether the alias is changed as it is, rather than replaced.
  bool edits() const {
    return target.empty() && split.empty() &&
           (!canary.empty() || !shadow.empty() || has_rule());
  }
};

void SetDuration(double seconds, google::protobuf::Duration* out) {
  const double whole = std::floor(seconds);
  out->set_seconds(static_cast<int64_t>(whole));
  out->set_nanos(static_cast<int32_t>(std::lround((seconds - whole) * 1e9)));
}

std::string Text(const google::protobuf::Duration& d) {
  return HumanDuration(absl::Seconds(d.seconds()) +
                       absl::Nanoseconds(d.nanos()));
}

absl::Status SetTargets(const Flags& flags, v1::Alias* alias) {
  if (!flags.target.empty()) {
    alias->clear_targets();
    alias->add_targets()->set_version(flags.target);
  }
  if (!flags.split.empty()) alias->clear_targets();
  for (const std::string& text : flags.split) {
    ASSIGN_OR_RETURN(const TargetAndNumber part,
                     ParseTargetAndNumber("--split", text));
    v1::AliasTarget* const target = alias->add_targets();
    target->set_version(part.target);
    target->set_weight(static_cast<uint32_t>(part.number));
  }
  if (flags.canary.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const TargetAndNumber canary,
                   ParseTargetAndNumber("--canary", flags.canary));
  if (canary.number > 100) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--canary ", Quote(flags.canary), " is more than 100 percent"));
  }
  // In hundredths of a percent, so that 0.5 percent can be asked for.
  const uint32_t weight =
      static_cast<uint32_t>(std::lround(canary.number * 100));
  alias->mutable_targets()->DeleteSubrange(1, alias->targets_size() - 1);
  alias->mutable_targets(0)->set_weight(10000 - weight);
  v1::AliasTarget* const target = alias->add_targets();
  target->set_version(canary.target);
  target->set_weight(weight);
  return absl::OkStatus();
}

absl::Status SetRule(const Flags& flags, v1::Alias* alias) {
  if (!flags.has_rule()) return absl::OkStatus();
  v1::RollbackRule& rule = *alias->mutable_rollback_rule();
  if (flags.max_error_rate >= 0) rule.set_max_error_rate(flags.max_error_rate);
  if (flags.max_latency_s >= 0) {
    SetDuration(flags.max_latency_s, rule.mutable_max_latency());
  }
  if (flags.window_s >= 0) SetDuration(flags.window_s, rule.mutable_window());
  if (flags.min_requests > 0) rule.set_min_requests(flags.min_requests);
  return absl::OkStatus();
}

absl::StatusOr<v1::Alias> Set(const Flags& flags, RpcClient& client) {
  const std::string name = ResourceName(flags.name, "aliases");
  v1::SetAliasRequest request;
  v1::Alias& alias = *request.mutable_alias();
  if (flags.edits()) {
    // Its etag goes along, so a change by somebody else is not undone.
    v1::GetAliasRequest get;
    get.set_name(name);
    ASSIGN_OR_RETURN(alias, client.GetAlias(get));
  }
  alias.set_name(name);
  if (!flags.etag.empty()) alias.set_etag(flags.etag);
  RETURN_IF_ERROR(SetTargets(flags, &alias));
  if (!flags.shadow.empty()) {
    ASSIGN_OR_RETURN(const TargetAndNumber shadow,
                     ParseTargetAndNumber("--shadow", flags.shadow));
    alias.mutable_shadow()->set_version(shadow.target);
    alias.mutable_shadow()->set_share(shadow.number / 100);
  }
  RETURN_IF_ERROR(SetRule(flags, &alias));
  return client.SetAlias(request);
}

absl::StatusOr<v1::Alias> SetOrGet(const Flags& flags, RpcClient& client) {
  const std::string name = ResourceName(flags.name, "aliases");
  if (flags.promotes) {
    v1::PromoteAliasRequest request;
    request.set_name(name);
    request.set_version(flags.promote);
    request.set_etag(flags.etag);
    return client.PromoteAlias(request);
  }
  if (flags.rolls_back) {
    v1::RollBackAliasRequest request;
    request.set_name(name);
    request.set_etag(flags.etag);
    request.set_reason(flags.reason);
    return client.RollBackAlias(request);
  }
  if (!flags.target.empty() || !flags.split.empty() || flags.edits()) {
    return Set(flags, client);
  }
  v1::GetAliasRequest request;
  request.set_name(name);
  return client.GetAlias(request);
}

absl::Status Alias(const Flags& flags, RpcClient& client) {
  v1::ListAliasesResponse list;
  if (flags.name.empty()) {
    ASSIGN_OR_RETURN(list, client.ListAliases(ParentOf("")));
    Print(flags.output == OutputFormat::kJson ? MessageToJson(list)
                                              : AliasTable(list));
    return absl::OkStatus();
  }
  if (flags.removes) {
    v1::DeleteAliasRequest request;
    request.set_name(ResourceName(flags.name, "aliases"));
    request.set_etag(flags.etag);
    RETURN_IF_ERROR(client.DeleteAlias(request));
    Print(flags.output == OutputFormat::kJson
              ? "{}\n"
              : absl::StrCat("deleted ", Printable(flags.name), "\n"));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(*list.add_aliases(), SetOrGet(flags, client));
  Print(flags.output == OutputFormat::kJson ? MessageToJson(list.aliases(0))
                                            : AliasTable(list));
  return absl::OkStatus();
}

absl::Status Audit(const Flags& flags, RpcClient& client) {
  v1::ListAuditEntriesRequest request;
  request.set_parent(ParentOf(flags.name));
  request.set_resource(flags.name.empty() ? "" : IdOf(flags.name));
  request.set_page_size(flags.limit);
  ASSIGN_OR_RETURN(const v1::ListAuditEntriesResponse list,
                   client.ListAuditEntries(request));
  Print(flags.output == OutputFormat::kJson ? MessageToJson(list)
                                            : AuditTable(list));
  return absl::OkStatus();
}

// Options that say what an alias shall be.
using Options = std::vector<CLI::Option*>;

Options AddTargetFlags(CLI::App& command, Flags* f) {
  CLI::Option* const target =
      command.add_option("target", f->target,
                         "NAME@VERSION, or NAME for the newest version of now");
  target->type_name("TARGET");
  CLI::Option* const split = command.add_option(
      "--split", f->split,
      "One target and its weight, the stable one first; may be given many "
      "times");
  split->type_name("TARGET=WEIGHT")->allow_extra_args(false)->excludes(target);
  CLI::Option* const canary =
      command.add_option("--canary", f->canary,
                         "Give a candidate this share of the requests, the "
                         "stable target the rest");
  canary->type_name("TARGET=PERCENT")->excludes(split);
  CLI::Option* const shadow = command.add_option(
      "--shadow", f->shadow,
      "Run this share of the requests on another version too, compare and "
      "count; callers see nothing of it");
  shadow->type_name("TARGET=PERCENT");
  return {target, split, canary, shadow};
}

Options AddRuleFlags(CLI::App& command, Flags* f) {
  return {command
              .add_option("--max-error-rate", f->max_error_rate,
                          "Roll candidates back when more of their requests "
                          "fail")
              ->type_name("SHARE")
              ->check(CLI::Range(0.0, 1.0)),
          command
              .add_option("--max-latency", f->max_latency_s,
                          "Roll candidates back when the 95th percentile of "
                          "their time to the first token is longer")
              ->type_name("S")
              ->check(CLI::PositiveNumber),
          command
              .add_option("--window", f->window_s,
                          "Seconds that the rule looks back; default 300")
              ->type_name("S")
              ->check(CLI::Range(1.0, 86400.0)),
          command
              .add_option("--min-requests", f->min_requests,
                          "Requests that the rule waits for; default 20")
              ->type_name("N")
              ->check(CLI::Range(1, 1000))};
}

// Options of which only one makes sense, and none beside `set`. Returns
// --promote, whose value may be left out.
CLI::Option* AddActionFlags(CLI::App& command, const Options& set, Flags* f) {
  CLI::Option* const promote = command.add_option(
      "--promote", f->promote,
      "Give all requests to TARGET, by default the one candidate, else the "
      "shadow");
  promote->type_name("[TARGET]")->expected(0, 1);
  CLI::Option* const roll_back = command.add_flag(
      "--rollback", f->rolls_back,
      "Take candidates and shadow back, or without any the last promotion");
  CLI::Option* const remove =
      command.add_flag("--delete", f->removes, "Remove the alias");
  for (CLI::Option* const action : {promote, roll_back, remove}) {
    for (CLI::Option* const option : set) action->excludes(option);
  }
  promote->excludes(roll_back)->excludes(remove);
  roll_back->excludes(remove);
  command.add_option("--reason", f->reason, "Why, for the audit trail")
      ->needs(roll_back);
  return promote;
}

void AddAlias(CLI::App& adapter, int* exit_code) {
  CLI::App* const command = adapter.add_subcommand(
      "alias",
      "Let a task tag point to versions: one, or several by weight; without "
      "TARGET show it, without ALIAS list all");
  command->footer(kAliasFooter);
  const auto f = std::make_shared<Flags>();
  command->add_option("alias", f->name, "The task tag")->type_name("ALIAS");
  Options set = AddTargetFlags(*command, f.get());
  for (CLI::Option* option : AddRuleFlags(*command, f.get())) {
    set.push_back(option);
  }
  CLI::Option* const promote = AddActionFlags(*command, set, f.get());
  command->add_option("--etag", f->etag,
                      "Change nothing unless the alias has this etag");
  AddServerFlags(*command, &f->server);
  AddOutputFlag(*command, &f->output);
  command->callback([f, promote, exit_code] {
    f->promotes = promote->count() > 0;
    RpcClient client(f->server);
    *exit_code = ReportError(Alias(*f, client));
  });
}

void AddAudit(CLI::App& adapter, int* exit_code) {
  CLI::App* const command = adapter.add_subcommand(
      "audit", "Show who changed what adapters and aliases answer");
  command->footer(
      "Examples:\n"
      "  lorikeet adapter audit\n"
      "  lorikeet adapter audit cipher --limit 100\n"
      "  lorikeet adapter audit --output json | jq '.entries[].actor'\n");
  const auto f = std::make_shared<Flags>();
  command->add_option("name", f->name, "Of one adapter or alias; default: all")
      ->type_name("NAME");
  command->add_option("--limit", f->limit, "Most entries, newest first")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  AddServerFlags(*command, &f->server);
  AddOutputFlag(*command, &f->output);
  command->callback([f, exit_code] {
    RpcClient client(f->server);
    *exit_code = ReportError(Audit(*f, client));
  });
}

}  // namespace

absl::StatusOr<TargetAndNumber> ParseTargetAndNumber(absl::string_view flag,
                                                     absl::string_view text) {
  TargetAndNumber out;
  const size_t equal = text.rfind('=');
  if (equal == absl::string_view::npos || equal == 0 ||
      !absl::SimpleAtod(text.substr(equal + 1), &out.number) ||
      !(out.number >= 0 && out.number <= 1e6)) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, " ", Quote(text), " is not TARGET=NUMBER from 0 to 1000000"));
  }
  out.target = std::string(text.substr(0, equal));
  return out;
}

std::string AliasTable(const v1::ListAliasesResponse& list) {
  Table table({{"ALIAS"},
               {"TARGET"},
               {"SHARE", Table::Align::kRight},
               {"REQUESTS", Table::Align::kRight},
               {"ERRORS", Table::Align::kRight},
               {"P95", Table::Align::kRight},
               {"SHADOW"},
               {"PREVIOUS"},
               {"ETAG"}});
  const auto percent = [](double share) {
    return absl::StrCat(Fixed(100 * share, 2), "%");
  };
  for (const v1::Alias& alias : list.aliases()) {
    double sum = 0;
    for (const v1::AliasTarget& target : alias.targets())
      sum += target.weight();
    std::string shadow;
    if (alias.has_shadow()) {
      const v1::AliasShadow& s = alias.shadow();
      shadow =
          absl::StrCat(s.version(), " ", percent(s.share()), ": ", s.equal(),
                       " equal, ", s.different(), " different, ", s.failed(),
                       " failed, ", s.skipped(), " skipped");
    }
    for (int i = 0; i < alias.targets_size(); ++i) {
      const v1::AliasTarget& target = alias.targets(i);
      const bool is_first = i == 0;
      table.AddRow({is_first ? ShortName(alias.name()) : "", target.version(),
                    percent(sum > 0 ? target.weight() / sum : 0),
                    absl::StrCat(target.requests()),
                    absl::StrCat(target.errors()),
                    target.requests() > 0 ? Text(target.latency_p95()) : "",
                    is_first ? shadow : "", is_first ? alias.previous() : "",
                    is_first ? alias.etag() : ""});
    }
  }
  return table.ToString();
}

std::string AuditTable(const v1::ListAuditEntriesResponse& list) {
  Table table({{"TIME"},
               {"ACTOR"},
               {"ACTION"},
               {"NAME"},
               {"OLD"},
               {"NEW"},
               {"REASON"}});
  for (const v1::AuditEntry& entry : list.entries()) {
    const absl::Time time = absl::FromUnixSeconds(entry.time().seconds()) +
                            absl::Nanoseconds(entry.time().nanos());
    table.AddRow(
        {absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::LocalTimeZone()),
         entry.actor(), entry.action(), entry.resource(), entry.old_target(),
         entry.new_target(), entry.reason()});
  }
  return table.ToString();
}

void AddAliasCommands(CLI::App& adapter, int* exit_code) {
  AddAlias(adapter, exit_code);
  AddAudit(adapter, exit_code);
}

}  // namespace lorikeet
