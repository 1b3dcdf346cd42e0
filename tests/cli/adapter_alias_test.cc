#include "cli/adapter_alias.h"

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

// `text` without the spaces of its columns.
std::string Squeezed(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' || out.empty() || out.back() != ' ') out += c;
  }
  return out;
}

TEST(TargetAndNumberTest, IsATargetAndANumber) {
  const auto parsed = ParseTargetAndNumber("--canary", "acme/caesar@2=0.5");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->target, "acme/caesar@2");
  EXPECT_EQ(parsed->number, 0.5);
}

TEST(TargetAndNumberTest, NamesTheFlagAndTheText) {
  for (const char* text : {"caesar@2", "=5", "caesar@2=", "caesar@2=x",
                           "caesar@2=-1", "caesar@2=nan", "caesar@2=1e9"}) {
    const auto parsed = ParseTargetAndNumber("--canary", text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument)
        << text;
    EXPECT_TRUE(absl::StrContains(parsed.status().message(), "--canary"));
    EXPECT_TRUE(absl::StrContains(parsed.status().message(), text));
  }
}

TEST(AliasTableTest, HasALinePerTarget) {
  v1::ListAliasesResponse list;
  v1::Alias& alias = *list.add_aliases();
  alias.set_name("tenants/default/aliases/cipher");
  alias.set_previous("caesar@7");
  alias.set_etag("12");
  v1::AliasTarget& stable = *alias.add_targets();
  stable.set_version("caesar@1");
  stable.set_weight(3);
  stable.set_requests(30);
  stable.mutable_latency_p95()->set_nanos(5'000'000);
  v1::AliasTarget& canary = *alias.add_targets();
  canary.set_version("caesar@2");
  canary.set_weight(1);
  alias.mutable_shadow()->set_version("caesar@3");
  alias.mutable_shadow()->set_share(0.1);
  alias.mutable_shadow()->set_different(4);
  EXPECT_EQ(Squeezed(AliasTable(list)),
            "ALIAS TARGET SHARE REQUESTS ERRORS P95 SHADOW PREVIOUS ETAG\n"
            "cipher caesar@1 75.00% 30 0 5.00 ms caesar@3 10.00%: 0 equal, 4 "
            "different, 0 failed, 0 skipped caesar@7 12\n"
            "- caesar@2 25.00% 0 0 - - - -\n");
}

TEST(AuditTableTest, HasALinePerEntry) {
  v1::ListAuditEntriesResponse list;
  v1::AuditEntry& entry = *list.add_entries();
  entry.set_actor("ipv4:10.0.0.1:5");
  entry.set_action("alias.promote");
  entry.set_resource("cipher");
  entry.set_old_target("caesar@1:95 caesar@2:5");
  entry.set_new_target("caesar@2");
  const std::string table = AuditTable(list);
  for (const char* text : {"ipv4:10.0.0.1:5", "alias.promote", "cipher",
                           "caesar@1:95 caesar@2:5", "caesar@2"}) {
    EXPECT_TRUE(absl::StrContains(table, text)) << table;
  }
}

}  // namespace
}  // namespace lorikeet
