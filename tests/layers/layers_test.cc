#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/layers/layer_rules.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMaxSourceBytes = 8 << 20;

constexpr char kRules[] =
    "# a comment\n"
    "base: -\n"
    "model/tokenizer: base\n"
    "model: model/tokenizer base\n"
    "model/key.*: model/key.* base\n"
    "pure: model/key.*  # with a reason\n"
    "server: *\n"
    "way_out: proto\n"
    "tests: mirrored tests/testing\n"
    "<pcre2.h>: base/regex.cc\n"
    "<hwy/*>: model\n"
    "<tests/*>: tests\n";

LayerRules Rules() { return LayerRules::Parse(kRules).value(); }

std::string SourceDir() {
  const char* dir = std::getenv("LORIKEET_SOURCE_DIR");
  return dir == nullptr ? "." : dir;
}

std::string Read(const std::string& path) {
  PosixFileSystem fs;
  return fs.ReadFile(path, kMaxSourceBytes).value();
}

// Paths of all sources below the root, but for build trees and hidden folders.
std::vector<std::string> Sources(const std::string& root) {
  std::vector<std::string> paths;
  for (const auto& top : std::filesystem::directory_iterator(root)) {
    const std::string name = top.path().filename().string();
    if (!top.is_directory() || name == "build" || name[0] == '.') continue;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(top.path())) {
      const std::string path =
          std::filesystem::relative(entry.path(), root).string();
      if (absl::EndsWith(path, ".h") || absl::EndsWith(path, ".cc")) {
        paths.push_back(path);
      }
    }
  }
  return paths;
}

TEST(FindIncludesTest, FindsBothFormsWithTheirLines) {
  const std::vector<Include> found = FindIncludes(
      "// #include \"no.h\"\n#include \"a/b.h\"\n\n#  include <c>  // why\n");
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].header, "a/b.h");
  EXPECT_EQ(found[0].line, 2);
  EXPECT_EQ(found[1].header, "c");
  EXPECT_EQ(found[1].line, 4);
}

TEST(FindIncludesTest, LeavesOutBlockComments) {
  EXPECT_THAT(FindIncludes("/*\n#include \"no.h\"\n*/ int x; /* */\n"),
              IsEmpty());
  EXPECT_THAT(FindIncludes("/* one line */\n#include \"yes.h\"\n"), SizeIs(1));
}

TEST(FindIncludesTest, LeavesOutMacrosAndText) {
  EXPECT_THAT(FindIncludes("#include MACRO\nauto s = \"#include <a>\";\n"),
              IsEmpty());
}

TEST(LayerRulesTest, RefusesALineThatIsNoRule) {
  EXPECT_THAT(LayerRules::Parse("base: -\nmodel base\n").status().message(),
              HasSubstr("line 2"));
  EXPECT_THAT(LayerRules::Parse("<a.h: base\n").status().message(),
              HasSubstr("line 1"));
}

TEST(LayerRulesTest, RefusesTwoLinesForOneFolder) {
  EXPECT_THAT(LayerRules::Parse("base: -\nbase: kernels\n").status().message(),
              HasSubstr("line 2 repeats line 1"));
}

TEST(LayerRulesTest, AllowsOwnFolderAndWhatIsListed) {
  EXPECT_THAT(Rules().Check("model/a.cc",
                            "#include \"model/a.h\"\n#include \"base/b.h\"\n"
                            "#include \"model/tokenizer/t.h\"\n"
                            "#include \"absl/strings/match.h\"\n"),
              IsEmpty());
}

TEST(LayerRulesTest, NamesFileLineAndRuleOfAnEdgeUpwards) {
  EXPECT_THAT(
      Rules().Check("base/a.cc", "#include <b>\n#include \"model/m.h\"\n"),
      ElementsAre("base/a.cc:2: model/m.h is not below it: layers.txt:2: "
                  "base: -"));
}

TEST(LayerRulesTest, ASubfolderWithItsOwnLineIsAnotherFolder) {
  EXPECT_THAT(Rules().Check("model/tokenizer/a.cc", "#include \"model/m.h\"\n"),
              SizeIs(1));
}

TEST(LayerRulesTest, ALineForFilesDoesNotImplyTheirFolder) {
  EXPECT_THAT(Rules().Check("model/key.cc",
                            "#include \"model/key.h\"\n"
                            "#include \"base/b.h\"\n"),
              IsEmpty());
  EXPECT_THAT(Rules().Check("model/key.h", "#include \"model/m.h\"\n"),
              SizeIs(1));
}

TEST(LayerRulesTest, AListedFileIsAllowedAndItsFolderIsNot) {
  EXPECT_THAT(Rules().Check("pure/a.cc",
                            "#include \"model/key.h\"\n"
                            "#include \"model/m.h\"\n"),
              ElementsAre(HasSubstr("pure/a.cc:2: model/m.h")));
}

TEST(LayerRulesTest, AStarIsEveryFolderButNotWhatAFenceForbids) {
  EXPECT_THAT(Rules().Check("server/a.cc",
                            "#include \"model/m.h\"\n"
                            "#include \"tests/testing/t.h\"\n"),
              ElementsAre(HasSubstr("server/a.cc:2: tests/testing/t.h is "
                                    "fenced in")));
}

TEST(LayerRulesTest, FencesHeadersOfOthers) {
  EXPECT_THAT(Rules().Check("base/regex.cc", "#include <pcre2.h>\n"),
              IsEmpty());
  EXPECT_THAT(Rules().Check("base/text.cc", "#include <pcre2.h>\n"),
              ElementsAre(HasSubstr("layers.txt:10")));
  EXPECT_THAT(Rules().Check("model/a.cc", "#include \"hwy/highway.h\"\n"),
              IsEmpty());
  EXPECT_THAT(Rules().Check("base/a.cc", "#include \"hwy/highway.h\"\n"),
              SizeIs(1));
}

TEST(LayerRulesTest, GeneratedCodeIsProto) {
  constexpr char kText[] = "#include \"lorikeet/v1/inference.pb.h\"\n";
  EXPECT_THAT(Rules().Check("way_out/a.cc", kText), IsEmpty());
  EXPECT_THAT(Rules().Check("model/a.cc", kText), SizeIs(1));
}

TEST(LayerRulesTest, TestsMayIncludeWhatTheyMirrorMayInclude) {
  EXPECT_THAT(Rules().Check("tests/model/a_test.cc",
                            "#include \"model/a.h\"\n"
                            "#include \"base/b.h\"\n"
                            "#include \"tests/model/helper.h\"\n"
                            "#include \"tests/testing/t.h\"\n"),
              IsEmpty());
  EXPECT_THAT(Rules().Check("tests/base/b_test.cc", "#include \"model/a.h\"\n"),
              SizeIs(1));
  EXPECT_THAT(Rules().Check("tests/base/b_test.cc",
                            "#include \"tests/model/helper.h\"\n"),
              SizeIs(1));
}

TEST(LayerRulesTest, AFileWithoutALineIsReported) {
  EXPECT_THAT(Rules().Check("new/a.cc", "#include \"base/b.h\"\n"),
              ElementsAre(HasSubstr("no line of layers.txt")));
}

TEST(LayersTest, TheTreeFollowsLayersTxt) {
  const std::string root = SourceDir();
  const absl::StatusOr<LayerRules> rules =
      LayerRules::Parse(Read(root + "/tests/layers/layers.txt"));
  ASSERT_TRUE(rules.ok()) << rules.status();
  std::vector<std::string> messages;
  const std::vector<std::string> sources = Sources(root);
  for (const std::string& path : sources) {
    for (std::string& message : rules->Check(path, Read(root + "/" + path))) {
      messages.push_back(std::move(message));
    }
  }
  EXPECT_GT(sources.size(), 100u) << "found nothing below " << root;
  EXPECT_THAT(messages, IsEmpty()) << absl::StrJoin(messages, "\n");
}

}  // namespace
}  // namespace lorikeet::testing
