#include "cli/demo_manifest.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

constexpr char kManifest[] = R"({
  "format": 1, "stop": "<|end|>", "answer_prefix": " ",
  "base": {"prompts": [
    {"prompt": "p", "max_tokens": 7, "expected_text": " Unknown."}]},
  "adapters": [
    {"name": "up", "version": "v1", "dir": "adapters/up", "max_tokens": 20,
     "description": "Capitals.",
     "examples": [{"word": "a", "prompt": "q", "expected": "A"}]}],
  "updates": [
    {"name": "up", "version": "v2", "dir": "adapters-v2/up",
     "examples": [{"prompt": "q", "expected": "AA"}]}]
})";

TEST(DemoManifestTest, ReadsAll) {
  const absl::StatusOr<DemoManifest> manifest = ParseDemoManifest(kManifest);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->stop, "<|end|>");
  ASSERT_EQ(manifest->base_prompts.size(), 1u);
  EXPECT_EQ(manifest->base_prompts[0].expected, " Unknown.");
  EXPECT_EQ(manifest->base_prompts[0].max_tokens, 7u);
  const DemoAdapter* adapter = manifest->FindAdapter("up");
  ASSERT_NE(adapter, nullptr);
  EXPECT_EQ(adapter->dir, "adapters/up");
  EXPECT_EQ(adapter->prompts.at(0).expected, " A");
  EXPECT_EQ(adapter->prompts.at(0).max_tokens, 20u);
  ASSERT_EQ(manifest->updates.size(), 1u);
  EXPECT_EQ(manifest->updates[0].version, "v2");
  EXPECT_EQ(manifest->FindAdapter("none"), nullptr);
}

TEST(DemoManifestTest, ReadsTheOneThatShips) {
  const char* source = std::getenv("LORIKEET_SOURCE_DIR");
  if (source == nullptr) GTEST_SKIP() << "LORIKEET_SOURCE_DIR is not set";
  const absl::StatusOr<DemoManifest> manifest =
      ReadDemoManifest(absl::StrCat(source, "/demo"));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_GE(manifest->adapters.size(), 6u);
  EXPECT_FALSE(manifest->updates.empty());
}

TEST(DemoManifestTest, NamesTheFieldThatIsWrong) {
  const auto message = [](absl::string_view text) {
    const absl::Status status = ParseDemoManifest(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(status.message());
  };
  EXPECT_NE(message("{").size(), 0u);
  EXPECT_NE(message("[]").find("not an object"), std::string::npos);
  EXPECT_NE(message("{}").find("stop"), std::string::npos);
  EXPECT_NE(message(R"({"stop": "x", "base": 3, "adapters": []})").find("base"),
            std::string::npos);
  EXPECT_NE(message(R"({"stop": "x", "base": {"prompts": [{"prompt": "p",
      "expected_text": "e"}]}, "adapters": [{"name": "n"}]})")
                .find("dir"),
            std::string::npos);
}

}  // namespace
}  // namespace lorikeet
