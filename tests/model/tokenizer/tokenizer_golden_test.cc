// What Hugging Face's library answers for four published tokenizers: ids of
// texts, texts of ids, streams. The files lie beside the source tree and are
// no part of it; without them the tests skip.

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <zlib.h>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/json.h"
#include "model/tokenizer/incremental_decoder.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet {
namespace {

std::string GoldenDir() {
  std::string shared;
  if (const char* dir = std::getenv("LORIKEET_SHARED"); dir != nullptr) {
    shared = dir;
  } else if (const char* source = std::getenv("LORIKEET_SOURCE_DIR");
             source != nullptr) {
    shared = absl::StrCat(source, "/../shared");
  }
  return absl::StrCat(shared, "/golden/tokenizer");
}

// Also reads a file that is not compressed.
std::string ReadGzip(const std::string& path) {
  std::string text;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return text;
  char buffer[1 << 16];
  int count = 0;
  while ((count = gzread(file, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(count));
  }
  gzclose(file);
  return text;
}

bool Flag(const Json& json, absl::string_view key, bool fallback) {
  const Json* value = json.Find(key);
  return value == nullptr ? fallback : value->AsBool();
}

std::vector<Token> Ids(const Json& json) {
  std::vector<Token> ids;
  for (const Json& id : json.Find("ids")->items()) {
    ids.push_back(static_cast<Token>(id.AsInt()));
  }
  return ids;
}

class TokenizerGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string dir = absl::StrCat(GoldenDir(), "/", GetParam());
    std::string text = ReadGzip(absl::StrCat(dir, "/tokenizer.json"));
    if (text.empty()) text = ReadGzip(absl::StrCat(dir, "/tokenizer.json.gz"));
    if (text.empty()) {
      GTEST_SKIP() << "skipped: no golden tokenizer " << GetParam();
    }
    auto tokenizer = Tokenizer::FromJson(text);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    dir_ = dir;
  }

  // Returns the objects of a .jsonl file.
  std::vector<Json> Read(const std::string& name) {
    std::vector<Json> cases;
    std::ifstream file(absl::StrCat(dir_, "/", name));
    for (std::string line; std::getline(file, line);) {
      auto json = Json::Parse(line);
      EXPECT_TRUE(json.ok()) << name << ": " << json.status();
      if (json.ok()) cases.push_back(*std::move(json));
    }
    EXPECT_FALSE(cases.empty()) << name;
    return cases;
  }

  void ExpectDecoded(const Json& json) {
    const std::vector<Token> ids = Ids(json);
    EXPECT_EQ(tokenizer_->Decode(ids, false), json.Find("decoded")->AsString())
        << json.Find("name")->AsString();
    EXPECT_EQ(tokenizer_->Decode(ids, true),
              json.Find("decoded_skip_special")->AsString())
        << json.Find("name")->AsString();
  }

  std::string dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGoldenTest, EncodesEveryTextToTheSameIds) {
  for (const Json& json : Read("cases.jsonl")) {
    const auto ids = tokenizer_->Encode(
        json.Find("text")->AsString(),
        {.add_special_tokens = Flag(json, "add_special_tokens", true),
         .special_as_text = Flag(json, "special_as_text", false)});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, Ids(json)) << json.Find("name")->AsString();
  }
}

TEST_P(TokenizerGoldenTest, DecodesAllIdsToTheSameText) {
  for (const Json& json : Read("cases.jsonl")) ExpectDecoded(json);
  for (const Json& json : Read("invalid.jsonl")) ExpectDecoded(json);
}

TEST_P(TokenizerGoldenTest, StreamsGiveOutAllThatCanBeGivenOut) {
  for (const Json& json : Read("stream.jsonl")) {
    const std::string& name = json.Find("name")->AsString();
    const std::vector<Json>& prefixes = json.Find("prefixes")->items();
    IncrementalDecoder decoder(*tokenizer_,
                               Flag(json, "skip_special_tokens", false));
    std::string text;
    size_t i = 0;
    for (const Token id : Ids(json)) {
      text += decoder.Append(id);
      ASSERT_EQ(text, prefixes[i++].AsString()) << name << " token " << i;
    }
    EXPECT_EQ(text + decoder.Finish(), json.Find("text")->AsString()) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Published, TokenizerGoldenTest,
                         ::testing::Values("smollm2", "llama3", "qwen3",
                                           "mistral"),
                         [](const auto& param) {
                           return std::string(param.param);
                         });

}  // namespace
}  // namespace lorikeet
