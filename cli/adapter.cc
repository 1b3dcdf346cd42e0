#include "cli/adapter.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/adapter_alias.h"
#include "cli/adapter_format.h"
#include "cli/channel.h"
#include "cli/choice.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "NAME is the adapter's name on the server; requests use it as their "
    "task.\nLORIKEET_SERVER sets the server for all commands.\n"
    "\nExamples:\n"
    "  lorikeet adapter register reverse demo/adapters/reverse\n"
    "  lorikeet adapter list\n"
    "  lorikeet adapter update caesar demo/adapters-v2/caesar\n"
    "  lorikeet adapter alias cipher caesar@1\n"
    "  lorikeet adapter delete reverse\n"
    "\n`lorikeet adapter COMMAND --help` tells more.";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
  std::string name;
  std::string dir;
  std::string upload_dir;
  std::string display_name;
  std::vector<std::string> labels;
  std::string merge_policy;
  std::string expected_sha256;
  bool validate_only = false;
  bool allow_missing = false;
  std::string etag;
  v1::InFlightPolicy in_flight = v1::IN_FLIGHT_POLICY_UNSPECIFIED;
  double drain_timeout_s = -1;
  v1::Tier tier = v1::TIER_UNSPECIFIED;
  uint64_t resume_after = 0;
  uint64_t count = 0;
};

using Action = std::function<absl::Status(const Flags&, RpcClient&)>;

// Adds a subcommand whose flags are added by `configure`.
template <typename Configure>
void AddAction(CLI::App& parent, int* exit_code, const std::string& name,
               const std::string& description, const std::string& examples,
               Configure configure, Action action) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->footer("Examples:\n" + examples);
  const auto flags = std::make_shared<Flags>();
  configure(*command, *flags);
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->callback([flags, exit_code, action = std::move(action)] {
    RpcClient client(flags->server);
    *exit_code = ReportError(action(*flags, client));
  });
}

CLI::Option* AddName(CLI::App& command, Flags& flags) {
  return command.add_option("name", flags.name, "Name of the adapter")
      ->type_name("NAME")
      ->required();
}

void AddSource(CLI::App& command, Flags& flags) {
  CLI::Option* dir = command.add_option(
      "dir", flags.dir,
      "PEFT directory that the server can read, below an --adapter-root of it");
  dir->type_name("DIR");
  command
      .add_option("--upload", flags.upload_dir,
                  "PEFT directory of this machine, sent over the connection")
      ->type_name("DIR")
      ->excludes(dir);
  command.add_option("--display-name", flags.display_name,
                     "Free text for people");
  command
      .add_option("--label", flags.labels,
                  "Free key and value; may be given many times")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command
      .add_option("--expected-sha256", flags.expected_sha256,
                  "Refuse the files unless they have this revision")
      ->type_name("HEX");
  command.add_flag("--validate-only", flags.validate_only,
                   "Read and verify everything, change nothing");
}

void AddInFlight(CLI::App& command, Flags& flags) {
  AddChoice<v1::InFlightPolicy>(
      command, "--in-flight", &flags.in_flight,
      {{"drain", v1::IN_FLIGHT_POLICY_DRAIN},
       {"abort", v1::IN_FLIGHT_POLICY_ABORT},
       {"fail", v1::IN_FLIGHT_POLICY_FAIL_IF_BUSY}},
      "What happens to running requests: drain (let them finish), abort, or "
      "fail (refuse if there are any)")
      ->type_name("POLICY")
      ->default_str("drain");
  command
      .add_option("--drain-timeout", flags.drain_timeout_s,
                  "Longest wait of drain in seconds; then the rest is aborted")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber);
}

void AddTier(CLI::App& command, Flags& flags,
             std::vector<std::pair<std::string, v1::Tier>> tiers,
             const std::string& text) {
  AddChoice<v1::Tier>(command, "--tier", &flags.tier, std::move(tiers), text)
      ->type_name("TIER");
}

void PrintAdapter(const Flags& flags, absl::string_view done,
                  const v1::Adapter& adapter) {
  if (flags.output == OutputFormat::kJson) {
    Print(MessageToJson(adapter));
    return;
  }
  Print(absl::StrCat(done, " ", AdapterLine(adapter), "\n"));
  for (const std::string& warning : adapter.lora().warnings()) {
    std::fprintf(stderr, "warning: %s\n", Printable(warning, 4096).c_str());
  }
}

// For subcommands whose answer is empty.
void PrintDone(const Flags& flags, absl::string_view done) {
  Print(flags.output == OutputFormat::kJson ? "{}\n"
                                            : absl::StrCat(done, "\n"));
}

absl::StatusOr<v1::Adapter> AdapterFromFlags(const Flags& flags) {
  v1::Adapter adapter;
  adapter.set_display_name(flags.display_name);
  for (const std::string& label : flags.labels) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (label.find('=') == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--label ", Quote(label), " is not of the form KEY=VALUE"));
    }
    (*adapter.mutable_labels())[parts.first] = parts.second;
  }
  if (!flags.dir.empty()) {
    // The server has another working directory.
    PosixFileSystem fs;
    const absl::StatusOr<std::string> path = fs.Canonical(flags.dir);
    adapter.mutable_source()->set_local_path(path.ok() ? *path : flags.dir);
  }
  if (!flags.expected_sha256.empty()) {
    adapter.mutable_source()->set_expected_sha256(flags.expected_sha256);
  }
  return adapter;
}

absl::Status Register(const Flags& flags, RpcClient& client) {
  if (flags.dir.empty() && flags.upload_dir.empty()) {
    return absl::InvalidArgumentError("name a directory: DIR or --upload DIR");
  }
  v1::UploadAdapterRequest first;
  v1::CreateAdapterRequest& request = *first.mutable_header();
  request.set_parent(ParentOf(flags.name));
  request.set_adapter_id(IdOf(flags.name));
  ASSIGN_OR_RETURN(*request.mutable_adapter(), AdapterFromFlags(flags));
  request.set_validate_only(flags.validate_only);
  ASSIGN_OR_RETURN(const v1::Adapter adapter,
                   flags.upload_dir.empty()
                       ? client.CreateAdapter(request)
                       : client.UploadAdapter(first, flags.upload_dir));
  PrintAdapter(flags, flags.validate_only ? "valid" : "registered", adapter);
  return absl::OkStatus();
}

absl::Status Update(const Flags& flags, RpcClient& client) {
  v1::UploadAdapterRequest first;
  v1::UpdateAdapterRequest& request = *first.mutable_update();
  ASSIGN_OR_RETURN(*request.mutable_adapter(), AdapterFromFlags(flags));
  request.mutable_adapter()->set_name(ResourceName(flags.name, "adapters"));
  request.mutable_adapter()->set_etag(flags.etag);
  request.set_allow_missing(flags.allow_missing);
  request.set_validate_only(flags.validate_only);
  ASSIGN_OR_RETURN(const v1::Adapter adapter,
                   flags.upload_dir.empty()
                       ? client.UpdateAdapter(request)
                       : client.UploadAdapter(first, flags.upload_dir));
  PrintAdapter(flags, flags.validate_only ? "valid" : "updated", adapter);
  return absl::OkStatus();
}

absl::Status List(const Flags& flags, RpcClient& client) {
  const std::string tenant = flags.name.empty() ? "default" : flags.name;
  ASSIGN_OR_RETURN(const v1::ListAdaptersResponse list,
                   client.ListAdapters(absl::StrCat("tenants/", tenant)));
  Print(flags.output == OutputFormat::kJson ? MessageToJson(list)
                                            : AdapterTable(list));
  return absl::OkStatus();
}

absl::Status Get(const Flags& flags, RpcClient& client) {
  v1::GetAdapterRequest request;
  request.set_name(ResourceName(flags.name, "adapters"));
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.GetAdapter(request));
  if (flags.output == OutputFormat::kJson) {
    Print(MessageToJson(adapter));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const v1::ListAdapterVersionsResponse versions,
                   client.ListAdapterVersions(request.name()));
  Print(AdapterDetails(adapter, versions));
  return absl::OkStatus();
}

absl::Status Delete(const Flags& flags, RpcClient& client) {
  v1::DeleteAdapterRequest request;
  request.set_name(ResourceName(flags.name, "adapters"));
  request.set_etag(flags.etag);
  request.set_allow_missing(flags.allow_missing);
  request.set_in_flight(flags.in_flight);
  if (flags.drain_timeout_s >= 0) {
    request.mutable_drain_timeout()->set_seconds(
        static_cast<int64_t>(std::ceil(flags.drain_timeout_s)));
  }
  RETURN_IF_ERROR(client.DeleteAdapter(request));
  PrintDone(flags, absl::StrCat("deleted ", Printable(flags.name)));
  return absl::OkStatus();
}

absl::Status Load(const Flags& flags, RpcClient& client) {
  v1::LoadAdapterRequest request;
  request.set_name(ResourceName(flags.name, "adapters"));
  request.set_tier(flags.tier);
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.LoadAdapter(request));
  PrintAdapter(flags, "loaded", adapter);
  return absl::OkStatus();
}

absl::Status Pin(const Flags& flags, RpcClient& client) {
  v1::LoadAdapterRequest request;
  request.set_name(ResourceName(flags.name, "adapters"));
  request.set_tier(flags.tier);
  request.set_pinned(true);
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.LoadAdapter(request));
  PrintAdapter(flags, "pinned", adapter);
  return absl::OkStatus();
}

// Not by LoadAdapter, which would bring the weights somewhere.
absl::Status Unpin(const Flags& flags, RpcClient& client) {
  v1::UpdateAdapterRequest request;
  request.mutable_adapter()->set_name(ResourceName(flags.name, "adapters"));
  request.mutable_adapter()->set_pinned(false);
  request.mutable_update_mask()->add_paths("pinned");
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.UpdateAdapter(request));
  PrintAdapter(flags, "unpinned", adapter);
  return absl::OkStatus();
}

absl::Status SetMergePolicy(const Flags& flags, RpcClient& client) {
  v1::UpdateAdapterRequest request;
  request.mutable_adapter()->set_name(ResourceName(flags.name, "adapters"));
  if (flags.merge_policy != "server") {
    request.mutable_adapter()->set_merge_policy(flags.merge_policy);
  }
  request.mutable_update_mask()->add_paths("merge_policy");
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.UpdateAdapter(request));
  PrintAdapter(flags, "changed", adapter);
  return absl::OkStatus();
}

absl::Status Unload(const Flags& flags, RpcClient& client) {
  v1::UnloadAdapterRequest request;
  request.set_name(ResourceName(flags.name, "adapters"));
  request.set_tier(flags.tier);
  request.set_in_flight(flags.in_flight);
  if (flags.drain_timeout_s >= 0) {
    request.mutable_drain_timeout()->set_seconds(
        static_cast<int64_t>(std::ceil(flags.drain_timeout_s)));
  }
  ASSIGN_OR_RETURN(const v1::Adapter adapter, client.UnloadAdapter(request));
  PrintAdapter(
      flags,
      absl::StrCat("unloaded ", HumanBytes(adapter.freed_bytes()), " of"),
      adapter);
  return absl::OkStatus();
}

std::string EventLine(const v1::WatchAdaptersResponse& event) {
  switch (event.kind()) {
    case v1::WatchAdaptersResponse::KIND_BOOKMARK:
      return absl::StrCat(event.sequence(), "  bookmark\n");
    case v1::WatchAdaptersResponse::KIND_ADDED:
      return absl::StrCat(event.sequence(), "  added     ",
                          AdapterLine(event.adapter()), "\n");
    case v1::WatchAdaptersResponse::KIND_DELETED:
      return absl::StrCat(event.sequence(), "  deleted   ",
                          AdapterLine(event.adapter()), "\n");
    default:
      return absl::StrCat(event.sequence(), "  modified  ",
                          AdapterLine(event.adapter()), "\n");
  }
}

absl::Status Watch(const Flags& flags, RpcClient& client) {
  v1::WatchAdaptersRequest request;
  request.set_parent(ParentOf(""));
  request.set_resume_after(flags.resume_after);
  uint64_t seen = 0;
  const auto has_enough = [&] {
    return flags.count > 0 && seen >= flags.count;
  };
  const absl::Status status = client.WatchAdapters(
      request, [&](const v1::WatchAdaptersResponse& event) {
        if (has_enough()) return false;
        ++seen;
        Print(flags.output == OutputFormat::kJson
                  ? MessageToJson(event, /*one_line=*/true)
                  : EventLine(event));
        return !has_enough();
      });
  return has_enough() ? absl::OkStatus() : status;
}

void AddLifeCycle(CLI::App& adapter, int* exit_code) {
  AddAction(
      adapter, exit_code, "register", "Register a new adapter",
      "  lorikeet adapter register reverse demo/adapters/reverse\n"
      "  lorikeet adapter register reverse --upload demo/adapters/reverse\n",
      [](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddSource(command, flags);
      },
      Register);
  AddAction(
      adapter, exit_code, "update",
      "Swap an adapter to a new version while it serves; running requests "
      "keep theirs",
      "  lorikeet adapter update caesar demo/adapters-v2/caesar\n"
      "  lorikeet adapter update caesar --label owner=ada\n",
      [](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddSource(command, flags);
        command.add_option("--etag", flags.etag,
                           "Change nothing unless the adapter has this etag");
        command.add_flag("--allow-missing", flags.allow_missing,
                         "Register it if there is none");
      },
      Update);
  AddAction(
      adapter, exit_code, "delete", "Remove an adapter",
      "  lorikeet adapter delete reverse\n"
      "  lorikeet adapter delete reverse --in-flight abort\n",
      [](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddInFlight(command, flags);
        command.add_option("--etag", flags.etag,
                           "Delete nothing unless the adapter has this etag");
        command.add_flag("--allow-missing", flags.allow_missing,
                         "No error if there is none");
      },
      Delete);
  AddAliasCommands(adapter, exit_code);
}

void AddQueries(CLI::App& adapter, int* exit_code) {
  AddAction(
      adapter, exit_code, "list", "List the adapters",
      "  lorikeet adapter list\n"
      "  lorikeet adapter list --output json | jq '.adapters[].name'\n",
      [](CLI::App& command, Flags& flags) {
        command.add_option("--tenant", flags.name, "Whose adapters")
            ->default_str("default");
      },
      List);
  AddAction(
      adapter, exit_code, "get", "Show one adapter and its versions",
      "  lorikeet adapter get caesar\n",
      [](CLI::App& command, Flags& flags) { AddName(command, flags); }, Get);
  AddAction(
      adapter, exit_code, "watch",
      "Print the adapters and then every change, until interrupted",
      "  lorikeet adapter watch\n"
      "  lorikeet adapter watch --output json --resume-after 17\n",
      [](CLI::App& command, Flags& flags) {
        command
            .add_option("--resume-after", flags.resume_after,
                        "Continue after this sequence number")
            ->type_name("N");
        command
            .add_option("--count", flags.count,
                        "End after this many events; 0 = never")
            ->type_name("N");
      },
      Watch);
}

void AddResidency(CLI::App& adapter, int* exit_code) {
  const std::vector<std::pair<std::string, v1::Tier>> upper_tiers = {
      {"host", v1::TIER_HOST}, {"device", v1::TIER_DEVICE}};
  const std::vector<std::pair<std::string, v1::Tier>> lower_tiers = {
      {"disk", v1::TIER_DISK}, {"host", v1::TIER_HOST}};
  AddAction(
      adapter, exit_code, "load",
      "Bring an adapter's weights into memory and wait for it",
      "  lorikeet adapter load reverse\n"
      "  lorikeet adapter load reverse --tier host\n",
      [&](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddTier(command, flags, upper_tiers,
                "Tier to reach: host or device (default)");
      },
      Load);
  AddAction(
      adapter, exit_code, "unload", "Free the memory of an adapter's weights",
      "  lorikeet adapter unload reverse\n"
      "  lorikeet adapter unload reverse --tier host\n",
      [&](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddTier(command, flags, lower_tiers,
                "Highest tier that may keep a copy: disk (default) or host");
        AddInFlight(command, flags);
      },
      Unload);
  AddAction(
      adapter, exit_code, "pin",
      "Load an adapter and never evict it from there",
      "  lorikeet adapter pin reverse\n",
      [&](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        AddTier(command, flags, upper_tiers,
                "Tier to hold: host or device (default)");
      },
      Pin);
  AddAction(
      adapter, exit_code, "unpin", "Let an adapter be evicted again",
      "  lorikeet adapter unpin reverse\n",
      [](CLI::App& command, Flags& flags) { AddName(command, flags); }, Unpin);
  AddAction(
      adapter, exit_code, "merge-policy",
      "Say whether requests of an adapter get merged weights",
      "  lorikeet adapter merge-policy reverse always\n"
      "  lorikeet merged            what is merged, and why\n",
      [](CLI::App& command, Flags& flags) {
        AddName(command, flags);
        command
            .add_option("policy", flags.merge_policy,
                        "never, always, auto (while measured costs say so), or "
                        "server (as its --merge says)")
            ->type_name("POLICY")
            ->check(CLI::IsMember({"never", "always", "auto", "server"}))
            ->required();
      },
      SetMergePolicy);
}

}  // namespace

CLI::App* AddAdapterCommands(CLI::App& app, int* exit_code) {
  CLI::App* adapter = app.add_subcommand(
      "adapter", "Register, list, swap and remove adapters of a server");
  adapter->require_subcommand(1);
  adapter->footer(kFooter);
  AddLifeCycle(*adapter, exit_code);
  AddQueries(*adapter, exit_code);
  AddResidency(*adapter, exit_code);
  return adapter;
}

}  // namespace lorikeet
