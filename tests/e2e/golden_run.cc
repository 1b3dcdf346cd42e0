#include "tests/e2e/golden_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {

std::string RequestLine(const std::string& id, const Who& who,
                        const std::vector<Token>& ids, size_t max_tokens) {
  Json line = Json::Object();
  line.Set("id", id);
  if (!who.parts.empty()) {
    Json parts = Json::Array();
    for (const auto& [name, scale] : who.parts) {
      Json part = Json::Object();
      part.Set("name", name);
      part.Set("scale", scale);
      parts.Append(std::move(part));
    }
    line.Set("adapters", std::move(parts));
  } else if (!who.adapter.empty()) {
    line.Set("adapter", who.adapter);
  }
  Json tokens = Json::Array();
  for (const Token t : ids) tokens.Append(t);
  line.Set("token_ids", std::move(tokens));
  line.Set("max_tokens", static_cast<int64_t>(max_tokens));
  line.Set("ignore_eos", true);
  line.Set("return_logits", true);
  return line.Dump() + "\n";
}

Who WhoOfMix(const Json& mix) {
  Who who;
  for (const Json& part : mix.Find("parts")->items()) {
    who.parts.emplace_back(part.items()[0].AsString(),
                           part.items()[1].AsDouble());
  }
  return who;
}

Json ReadJson(const std::string& path) {
  PosixFileSystem fs;
  const auto text = fs.ReadFile(path, 100 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto json = Json::Parse(*text);
  EXPECT_TRUE(json.ok()) << path << json.status();
  return *json;
}

void AddGolden(const std::string& path, const std::string& name, const Who& who,
               GoldenRun* c) {
  const auto golden = ReadGolden(path);
  ASSERT_TRUE(golden.ok()) << golden.status();
  for (size_t i = 0; i < golden->prompts.size(); ++i) {
    const GoldenPrompt& p = golden->prompts[i];
    const std::string id = absl::StrCat(name, "/", i);
    GoldenRun::Expected e;
    e.rms = golden->logits_rms;
    const float* last = p.logits_row(p.logit_rows - 1, golden->vocab);
    e.logits.assign(last, last + golden->vocab);
    e.tokens.assign(p.greedy_ids.begin(), p.greedy_ids.begin() + p.safe_steps);
    c->input += RequestLine(id, who, p.ids, e.tokens.size());
    c->expected[id] = e;
    // The logits after all but the last token, computed as a prompt.
    if (p.decode_logits.empty() || p.greedy_ids.empty()) continue;
    GoldenRun::Expected d;
    d.rms = e.rms;
    d.logits = p.decode_logits;
    std::vector<Token> ids = p.ids;
    ids.insert(ids.end(), p.greedy_ids.begin(), p.greedy_ids.end() - 1);
    c->input += RequestLine(id + "/decode", who, ids, 1);
    c->expected[id + "/decode"] = d;
  }
}

GoldenRun MakeGoldenRun(const Json& model, const std::string& golden_dir,
                        const std::string& model_dir) {
  GoldenRun c;
  c.name = model.Find("name")->AsString();
  c.model_dir = model_dir;
  AddGolden(JoinPath(golden_dir, model.Find("golden")->AsString()), "", {}, &c);
  for (const Json& adapter : model.Find("adapters")->items()) {
    const std::string& name = adapter.Find("name")->AsString();
    c.adapter_flags.push_back("--adapter");
    c.adapter_flags.push_back(absl::StrCat(
        name, "=", JoinPath(golden_dir, adapter.Find("dir")->AsString())));
    AddGolden(JoinPath(golden_dir, adapter.Find("golden")->AsString()), name,
              {name, {}}, &c);
  }
  const Json* mixes = model.Find("mixes");
  if (mixes == nullptr) return c;
  for (const Json& mix : mixes->items()) {
    AddGolden(JoinPath(golden_dir, mix.Find("golden")->AsString()),
              "mix-" + mix.Find("name")->AsString(), WhoOfMix(mix), &c);
  }
  return c;
}

SubprocessResult RunGolden(const GoldenRun& c, const std::string& input,
                           const std::vector<std::string>& flags) {
  std::vector<std::string> args = {LorikeetBinary(), "run", "--model",
                                   c.model_dir};
  args.insert(args.end(), c.adapter_flags.begin(), c.adapter_flags.end());
  args.insert(args.end(), flags.begin(), flags.end());
  return RunSubprocess(args, input);
}

void CompareWithGolden(const GoldenRun& c, const std::string& out,
                       double max_error) {
  size_t seen = 0;
  double worst = 0;
  for (const absl::string_view line :
       absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    const auto json = Json::Parse(line);
    ASSERT_TRUE(json.ok()) << json.status();
    const std::string& id = json->Find("id")->AsString();
    const GoldenRun::Expected& e = c.expected.at(id);
    const auto& logits = json->Find("logits")->items();
    ASSERT_EQ(logits.size(), e.logits.size()) << id;
    double error = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      error = std::max(error, std::fabs(logits[i].AsDouble() - e.logits[i]));
    }
    EXPECT_LE(error / e.rms, max_error) << c.name << " " << id;
    worst = std::max(worst, error / e.rms);
    if (!e.tokens.empty() && max_error <= kMaxError) {
      std::vector<Token> tokens;
      for (const Json& t : json->Find("token_ids")->items()) {
        tokens.push_back(static_cast<Token>(t.AsInt()));
      }
      EXPECT_EQ(tokens, e.tokens) << c.name << " " << id;
    }
    ++seen;
  }
  EXPECT_EQ(seen, c.expected.size());
  std::printf("%-22s %4zu answers, worst logit error %.1e of rms\n",
              c.name.c_str(), seen, worst);
}

}  // namespace lorikeet::testing
