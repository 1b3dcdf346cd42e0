#include "cli/adapter_format.h"

#include <google/protobuf/util/json_util.h>

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/text.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr char kDefaultTenant[] = "default";

std::string Time(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S",
                          absl::FromUnixSeconds(time.seconds()),
                          absl::LocalTimeZone());
}

std::string Scaling(const v1::LoraSpec& lora) {
  return absl::StrCat(lora.rank(), ", alpha ", lora.alpha(),
                      lora.use_rslora() ? ", rank-stabilized" : "",
                      lora.features().empty() ? "" : ", ",
                      absl::StrJoin(lora.features(), ", "));
}

// "STATE_ACTIVE" without "STATE_", in small letters.
std::string EnumText(absl::string_view name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

absl::string_view View(const std::string& text) { return text; }

}  // namespace

std::string ParentOf(absl::string_view name) {
  const size_t slash = name.find('/');
  return absl::StrCat("tenants/", slash == absl::string_view::npos
                                      ? absl::string_view(kDefaultTenant)
                                      : name.substr(0, slash));
}

std::string IdOf(absl::string_view name) {
  const size_t slash = name.find('/');
  if (slash == absl::string_view::npos) return std::string(name);
  return std::string(name.substr(slash + 1));
}

std::string ResourceName(absl::string_view name, absl::string_view collection) {
  return absl::StrCat(ParentOf(name), "/", collection, "/", IdOf(name));
}

std::string ShortName(absl::string_view resource_name) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(resource_name, '/');
  if (parts.size() != 4 || parts[0] != "tenants") {
    return std::string(resource_name);
  }
  if (parts[1] == kDefaultTenant) return std::string(parts[3]);
  return absl::StrCat(parts[1], "/", parts[3]);
}

std::string StateText(v1::Adapter::State state) {
  return EnumText(View(v1::Adapter::State_Name(state)), "STATE_");
}

std::string TierText(v1::Tier tier) {
  return EnumText(View(v1::Tier_Name(tier)), "TIER_");
}

std::string AdapterLine(const v1::Adapter& adapter) {
  std::string line = absl::StrCat(
      Printable(ShortName(adapter.name())), "@", adapter.version(), "  ",
      StateText(adapter.state()), "  on ", TierText(adapter.tier()),
      adapter.pinned() ? " (pinned)" : "", "  rank ", adapter.lora().rank(),
      "  ", HumanBytes(adapter.size_bytes()), "  ",
      adapter.revision().substr(0, 12));
  if (adapter.has_error()) {
    absl::StrAppend(&line, "  ", Printable(adapter.error().message()));
  }
  return line;
}

std::string AdapterTable(const v1::ListAdaptersResponse& list) {
  Table table({{"NAME"},
               {"VERSION", Table::Align::kRight},
               {"STATE"},
               {"TIER"},
               {"PINNED"},
               {"RANK", Table::Align::kRight},
               {"SIZE", Table::Align::kRight},
               {"ACTIVE", Table::Align::kRight},
               {"LAST USED"},
               {"REVISION"}});
  for (const v1::Adapter& adapter : list.adapters()) {
    table.AddRow(
        {ShortName(adapter.name()), absl::StrCat(adapter.version()),
         StateText(adapter.state()), TierText(adapter.tier()),
         adapter.pinned() ? "yes" : "no", absl::StrCat(adapter.lora().rank()),
         HumanBytes(adapter.size_bytes()),
         absl::StrCat(adapter.active_requests()),
         Time(adapter.last_used_time()), adapter.revision().substr(0, 12)});
  }
  return table.ToString();
}

std::string AdapterDetails(const v1::Adapter& adapter,
                           const v1::ListAdapterVersionsResponse& versions) {
  std::string out;
  const auto field = [&](absl::string_view key, absl::string_view value) {
    if (value.empty()) return;
    absl::StrAppend(&out, key, std::string(16 - key.size(), ' '),
                    Printable(value, 4096), "\n");
  };
  const v1::LoraSpec& lora = adapter.lora();
  field("name", ShortName(adapter.name()));
  field("display name", adapter.display_name());
  field("version", absl::StrCat(adapter.version()));
  field("revision", adapter.revision());
  field("state", StateText(adapter.state()));
  field("error", adapter.error().message());
  field("tier", absl::StrCat(TierText(adapter.tier()),
                             adapter.pinned() ? ", pinned" : ""));
  field("merge policy", adapter.merge_policy());
  field("base model", adapter.base_model());
  field("source", adapter.source().local_path());
  field("rank", Scaling(lora));
  field("modules", absl::StrJoin(lora.target_modules(), ", "));
  field("size", HumanBytes(adapter.size_bytes()));
  field("active requests", absl::StrCat(adapter.active_requests()));
  field("created", Time(adapter.create_time()));
  field("updated", Time(adapter.update_time()));
  field("last used", Time(adapter.last_used_time()));
  for (const auto& [key, value] : adapter.labels()) {
    field("label", absl::StrCat(key, "=", value));
  }
  for (const std::string& warning : lora.warnings()) field("warning", warning);

  Table table({{"VERSION", Table::Align::kRight},
               {"RANK", Table::Align::kRight},
               {"CREATED"},
               {"DIGEST"}});
  for (const v1::Version& version : versions.versions()) {
    table.AddRow({absl::StrCat(version.number()),
                  absl::StrCat(version.lora().rank()),
                  Time(version.create_time()), version.digest()});
  }
  if (table.num_rows() > 0) absl::StrAppend(&out, "\n", table.ToString());
  return out;
}

std::string MessageToJson(const google::protobuf::Message& message,
                          bool one_line) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = !one_line;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string out;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &out, options);
  CHECK(status.ok());
  if (one_line) out += "\n";
  return out;
}

}  // namespace lorikeet
