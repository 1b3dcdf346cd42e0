#include "cli/adapter_format.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

v1::Adapter SomeAdapter() {
  v1::Adapter adapter;
  adapter.set_name("tenants/default/adapters/reverse");
  adapter.set_version(2);
  adapter.set_revision("0123456789abcdef");
  adapter.set_state(v1::Adapter::STATE_ACTIVE);
  adapter.set_tier(v1::TIER_DEVICE);
  adapter.set_size_bytes(2048);
  adapter.mutable_lora()->set_rank(8);
  return adapter;
}

TEST(AdapterNamesTest, BelongToTheDefaultTenant) {
  EXPECT_EQ(ResourceName("reverse", "adapters"),
            "tenants/default/adapters/reverse");
  EXPECT_EQ(ParentOf("reverse"), "tenants/default");
  EXPECT_EQ(IdOf("reverse"), "reverse");
}

TEST(AdapterNamesTest, MayNameATenant) {
  EXPECT_EQ(ResourceName("acme/support", "aliases"),
            "tenants/acme/aliases/support");
  EXPECT_EQ(ParentOf("acme/support"), "tenants/acme");
  EXPECT_EQ(IdOf("acme/support"), "support");
}

TEST(AdapterNamesTest, ShortNameIsTheWayBack) {
  EXPECT_EQ(ShortName("tenants/default/adapters/reverse"), "reverse");
  EXPECT_EQ(ShortName("tenants/acme/adapters/support"), "acme/support");
  EXPECT_EQ(ShortName("something"), "something");
  EXPECT_EQ(ShortName("a/b/c/d"), "a/b/c/d");
}

TEST(AdapterFormatTest, LineSaysWhatMatters) {
  v1::Adapter adapter = SomeAdapter();
  adapter.set_pinned(true);
  EXPECT_EQ(AdapterLine(adapter),
            "reverse@2  active  on device (pinned)  rank 8  2.0 KiB  "
            "0123456789ab");
}

TEST(AdapterFormatTest, TableHasALinePerAdapter) {
  v1::ListAdaptersResponse list;
  *list.add_adapters() = SomeAdapter();
  *list.add_adapters() = SomeAdapter();
  const std::string table = AdapterTable(list);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3);
}

TEST(AdapterFormatTest, DetailsListTheVersions) {
  v1::ListAdapterVersionsResponse versions;
  v1::Version* version = versions.add_versions();
  version->set_number(1);
  version->set_digest("feedbeef");
  const std::string details = AdapterDetails(SomeAdapter(), versions);
  EXPECT_TRUE(absl::StrContains(details, "revision        0123456789abcdef"));
  EXPECT_TRUE(absl::StrContains(details, "feedbeef"));
  EXPECT_FALSE(absl::StrContains(details, "error"));
}

TEST(AdapterFormatTest, JsonKeepsTheNamesOfTheApi) {
  const std::string json = MessageToJson(SomeAdapter(), /*one_line=*/true);
  EXPECT_TRUE(absl::StrContains(json, "\"active_requests\":0"));
  EXPECT_TRUE(absl::StrContains(json, "\"state\":\"STATE_ACTIVE\""));
  EXPECT_EQ(std::count(json.begin(), json.end(), '\n'), 1);
}

}  // namespace
}  // namespace lorikeet
