#include "model/tokenizer/bpe_model.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/model/tokenizer/tokenizer_json.h"

namespace lorikeet {
namespace {

using ::lorikeet::testing::BpeModelJson;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Merges = std::vector<std::pair<std::string, std::string>>;

std::vector<Token> Encode(const std::string& json, absl::string_view piece,
                          bool byte_level = false) {
  std::vector<Token> ids;
  const auto model = BpeModel::FromJson(*Json::Parse(json), byte_level);
  EXPECT_TRUE(model.ok()) << model.status();
  if (model.ok()) model->Encode(piece, &ids);
  return ids;
}

TEST(BpeModelTest, MergesTheLowestRankFirst) {
  const std::vector<std::string> entries = {"a", "b", "c", "ab", "bc"};
  EXPECT_THAT(Encode(BpeModelJson(entries, {{"b", "c"}, {"a", "b"}}), "abc"),
              ElementsAre(0, 4));
  EXPECT_THAT(Encode(BpeModelJson(entries, {{"a", "b"}, {"b", "c"}}), "abc"),
              ElementsAre(3, 2));
}

TEST(BpeModelTest, AtEqualRankTheLeftmostGoesFirst) {
  EXPECT_THAT(Encode(BpeModelJson({"a", "aa"}, {{"a", "a"}}), "aaaaa"),
              ElementsAre(1, 1, 0));
}

TEST(BpeModelTest, TheRankBelongsToThePairAndNotToTheEntry) {
  const std::vector<std::string> entries = {"a", "b", "c", "ab", "bc", "abc"};
  // "a" + "bc" has a rank, "ab" + "c" has none.
  EXPECT_THAT(
      Encode(BpeModelJson(entries, {{"a", "b"}, {"b", "c"}, {"a", "bc"}}),
             "abc"),
      ElementsAre(3, 2));
}

TEST(BpeModelTest, ReadsMergesAsPairs) {
  EXPECT_THAT(Encode(R"({"vocab": {"a": 0, " ": 1, "a ": 2},
                         "merges": [["a", " "]]})",
                     "a "),
              ElementsAre(2));
}

TEST(BpeModelTest, DropsWhatHasNoEntryAndMergesItsNeighbours) {
  EXPECT_THAT(Encode(BpeModelJson({"!", "!!"}, {{"!", "!"}}), "!?!"),
              ElementsAre(1));
}

TEST(BpeModelTest, IgnoreMergesTakesAWholePieceAsItIs) {
  const std::string model = BpeModelJson({"a", "b", "ab"}, {});
  const std::string ignoring =
      BpeModelJson({"a", "b", "ab"}, {}, R"("ignore_merges": true, )");
  EXPECT_THAT(Encode(model, "ab"), ElementsAre(0, 1));
  EXPECT_THAT(Encode(ignoring, "ab"), ElementsAre(2));
  EXPECT_THAT(Encode(ignoring, "aba"), ElementsAre(0, 1, 0));
}

TEST(BpeModelTest, BytesAreLookedUpInTheByteAlphabet) {
  const std::string model =
      BpeModelJson({"Ġ", "Ã", "©", "Ã©", "ĠÃ©"}, {{"Ã", "©"}, {"Ġ", "Ã©"}});
  EXPECT_THAT(Encode(model, " é", /*byte_level=*/true), ElementsAre(4));
  EXPECT_THAT(Encode(model, "é\x04", /*byte_level=*/true), ElementsAre(3));
}

TEST(BpeModelTest, ByteFallbackNeedsAllBytesOfACodePoint) {
  const std::string options =
      R"("byte_fallback": true, "unk_token": "<unk>", )";
  const std::string model =
      BpeModelJson({"<unk>", "a", "<0xC3>", "<0xA9>"}, {}, options);
  EXPECT_THAT(Encode(model, "aéa"), ElementsAre(1, 2, 3, 1));
  EXPECT_THAT(Encode(model, "aèa"), ElementsAre(1, 0, 1));
}

TEST(BpeModelTest, FuseUnkJoinsUnknownsInARow) {
  const std::vector<std::string> entries = {"<unk>", "a"};
  EXPECT_THAT(
      Encode(BpeModelJson(entries, {}, R"("unk_token": "<unk>", )"), "xyaz"),
      ElementsAre(0, 0, 1, 0));
  EXPECT_THAT(
      Encode(BpeModelJson(entries, {},
                          R"("unk_token": "<unk>", "fuse_unk": true, )"),
             "xyaz"),
      ElementsAre(0, 1, 0));
}

TEST(BpeModelTest, PrefixAndSuffixOfPartsOfAWord) {
  const std::string model = BpeModelJson(
      {"a", "##b", "##c</w>", "a</w>", "ab", "abc</w>"},
      {{"a", "##b"}, {"ab", "##c</w>"}},
      R"("continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", )");
  EXPECT_THAT(Encode(model, "abc"), ElementsAre(5));
  EXPECT_THAT(Encode(model, "a"), ElementsAre(3));
}

// Merges by trying all pairs again after every merge.
std::vector<std::string> MergeNaively(std::vector<std::string> parts,
                                      const Merges& merges) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = i;
  while (true) {
    size_t best = merges.size();
    size_t place = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto it = ranks.find({parts[i], parts[i + 1]});
      if (it != ranks.end() && it->second < best) {
        best = it->second;
        place = i;
      }
    }
    if (best == merges.size()) return parts;
    parts[place] += parts[place + 1];
    parts.erase(parts.begin() + static_cast<int64_t>(place) + 1);
  }
}

TEST(BpeModelTest, ShortAndLongPiecesMergeAsTheDefinitionSays) {
  std::mt19937 random(17);
  const auto pick = [&](size_t n) { return random() % n; };
  for (int round = 0; round < 60; ++round) {
    // "▁" makes some models cut at the starts of words, some not.
    std::vector<std::string> entries = {"a", "b", "▁"};
    Merges merges;
    while (merges.size() < 12) {
      const std::string left = entries[pick(entries.size())];
      const std::string right = entries[pick(entries.size())];
      if (round % 2 == 0 && right[0] == '\xE2' && left.back() != '\x81') {
        continue;
      }
      merges.emplace_back(left, right);
      if (std::find(entries.begin(), entries.end(), left + right) ==
          entries.end()) {
        entries.push_back(left + right);
      }
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const auto model =
        BpeModel::FromJson(*Json::Parse(BpeModelJson(entries, merges)), false);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const size_t size : {2u, 5u, 39u, 40u, 41u, 200u}) {
      std::vector<std::string> parts;
      std::string text;
      for (size_t i = 0; i < size; ++i) {
        parts.push_back(entries[pick(3)]);
        text += parts.back();
      }
      std::vector<Token> ids;
      model->Encode(text, &ids);
      std::vector<std::string> actual;
      for (const Token id : ids) actual.emplace_back(*model->TokenText(id));
      ASSERT_EQ(actual, MergeNaively(parts, merges)) << text;
    }
  }
}

TEST(BpeModelTest, RefusesABrokenModelNamingTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "model is a list"},
      {R"({"merges": []})", "\"vocab\" is missing"},
      {R"({"vocab": [], "merges": []})", "\"vocab\" is a list"},
      {R"({"vocab": {"a": -1}, "merges": []})", "\"vocab.a\" is -1"},
      {R"({"vocab": {"a": 1e9}, "merges": []})", "\"vocab.a\" is"},
      {R"({"vocab": {"a": 999999999}, "merges": []})",
       "\"vocab.a\" is 999999999"},
      {R"({"vocab": {"a": "0"}, "merges": []})", "\"vocab.a\" is"},
      {R"({"vocab": {"a": 0, "b": 0}, "merges": []})", "the id of \"a\""},
      {R"({"vocab": {}})", "\"merges\" is missing"},
      {R"({"vocab": {}, "merges": {}})", "\"merges\" is an object"},
      {R"({"vocab": {"a": 0}, "merges": ["a"]})", "\"merges[0]\" is"},
      {R"({"vocab": {"a": 0}, "merges": [["a"]]})", "\"merges[0]\" is"},
      {R"({"vocab": {"a": 0}, "merges": [["a", 3]]})", "\"merges[0]\" is"},
      {R"({"vocab": {"a": 0}, "merges": ["a b"]})", "needs \"b\""},
      {R"({"vocab": {"a": 0, "b": 1}, "merges": ["a b"]})", "needs \"ab\""},
      {R"({"vocab": {}, "merges": [], "unk_token": "u"})", "\"unk_token\" is"},
      {R"({"vocab": {}, "merges": [], "byte_fallback": 1})",
       "\"byte_fallback\" is 1"},
  };
  for (const auto& [json, message] : cases) {
    const auto model = BpeModel::FromJson(*Json::Parse(json), false);
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument)
        << json;
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(message));
  }
}

TEST(BpeModelTest, RefusesOtherModelsAndDropoutByName) {
  for (const char* json : {R"({"type": "Unigram", "vocab": []})",
                           R"({"vocab": {}, "merges": [], "dropout": 0.1})"}) {
    EXPECT_EQ(BpeModel::FromJson(*Json::Parse(json), false).status().code(),
              absl::StatusCode::kUnimplemented)
        << json;
  }
}

TEST(BpeModelTest, IdsMayHaveGaps) {
  const auto model = BpeModel::FromJson(
      *Json::Parse(R"({"vocab": {"a": 5}, "merges": []})"), false);
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->id_limit(), 6);
  EXPECT_EQ(model->TokenText(5), "a");
  EXPECT_EQ(model->TokenText(4), std::nullopt);
  EXPECT_EQ(model->TokenText(6), std::nullopt);
  EXPECT_EQ(model->TokenText(-1), std::nullopt);
}

TEST(BpeModelTest, AnEmptyPieceHasNoIds) {
  EXPECT_THAT(Encode(BpeModelJson({"a"}, {}), ""), IsEmpty());
}

}  // namespace
}  // namespace lorikeet
