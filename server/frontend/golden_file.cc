#include "server/frontend/golden_file.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

absl::Status Invalid(int line, absl::string_view rest) {
  return WithReason(absl::InvalidArgumentError(
                        absl::StrCat("golden.jsonl line ", line, ": ", rest)),
                    "GOLDEN_INVALID");
}

absl::Status Mismatch(const GoldenCase& golden, absl::string_view rest) {
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        "golden.jsonl line ", golden.line, ": ", rest)),
                    "GOLDEN_MISMATCH");
}

absl::StatusOr<std::vector<uint32_t>> ParseTokens(int line,
                                                  absl::string_view key,
                                                  const Json* list) {
  std::vector<uint32_t> tokens;
  if (list == nullptr) return tokens;
  if (!list->is_array()) {
    return Invalid(line, absl::StrCat(key, " is ", list->TypeName(),
                                      ", expected a list of token ids"));
  }
  for (const Json& item : list->items()) {
    if (!item.is_int() || item.AsInt() < 0 || item.AsInt() > INT32_MAX) {
      return Invalid(line,
                     absl::StrCat(key, "[", tokens.size(), "] is no token id"));
    }
    tokens.push_back(static_cast<uint32_t>(item.AsInt()));
  }
  return tokens;
}

absl::StatusOr<std::vector<float>> ParseLogits(int line, const Json* list) {
  std::vector<float> logits;
  if (list == nullptr) return logits;
  if (!list->is_array()) {
    return Invalid(line, absl::StrCat("logits is ", list->TypeName(),
                                      ", expected a list of numbers"));
  }
  for (const Json& item : list->items()) {
    if (!item.is_number()) {
      return Invalid(line,
                     absl::StrCat("logits[", logits.size(), "] is no number"));
    }
    logits.push_back(static_cast<float>(item.AsDouble()));
  }
  return logits;
}

absl::StatusOr<GoldenCase> ParseCase(int line, absl::string_view text) {
  const absl::StatusOr<Json> json = Json::Parse(text);
  if (!json.ok()) return Invalid(line, json.status().message());
  if (!json->is_object()) {
    return Invalid(
        line, absl::StrCat("is ", json->TypeName(), ", expected an object"));
  }
  JsonReader reader(*json, absl::StrCat("golden.jsonl line ", line));
  GoldenCase golden;
  golden.line = line;
  if (const Json* prompt = reader.Get("prompt"); prompt != nullptr) {
    if (!prompt->is_string()) return Invalid(line, "prompt is no string");
    golden.prompt = prompt->AsString();
  }
  ASSIGN_OR_RETURN(golden.token_ids,
                   ParseTokens(line, "token_ids", reader.Get("token_ids")));
  ASSIGN_OR_RETURN(golden.tokens,
                   ParseTokens(line, "tokens", reader.Get("tokens")));
  ASSIGN_OR_RETURN(golden.logits, ParseLogits(line, reader.Get("logits")));
  const absl::StatusOr<double> tolerance =
      reader.Double("tolerance", kDefaultGoldenTolerance, 0, 1);
  if (!tolerance.ok()) {
    return WithReason(tolerance.status(), "GOLDEN_INVALID");
  }
  golden.tolerance = *tolerance;
  if (const auto unknown = reader.UnknownKeys(); !unknown.empty()) {
    return Invalid(line, absl::StrCat("unknown field ", Quote(unknown[0])));
  }
  if (golden.prompt.has_value() == !golden.token_ids.empty()) {
    return Invalid(line, "needs either prompt or token_ids");
  }
  if (golden.tokens.empty() && golden.logits.empty()) {
    return Invalid(line, "needs tokens or logits");
  }
  return golden;
}

}  // namespace

absl::StatusOr<std::vector<GoldenCase>> ParseGoldenFile(
    absl::string_view text) {
  std::vector<GoldenCase> cases;
  int line = 0;
  for (const absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++line;
    if (absl::StripAsciiWhitespace(raw).empty()) continue;
    if (cases.size() == kMaxGoldenCases) {
      return Invalid(line, absl::StrCat("there are more than ", kMaxGoldenCases,
                                        " cases"));
    }
    ASSIGN_OR_RETURN(GoldenCase golden, ParseCase(line, raw));
    cases.push_back(std::move(golden));
  }
  return cases;
}

absl::Status CompareTokens(const GoldenCase& golden,
                           const std::vector<uint32_t>& got) {
  for (size_t i = 0; i < golden.tokens.size(); ++i) {
    if (i >= got.size()) {
      return Mismatch(golden,
                      absl::StrCat("got ", got.size(), " tokens, expected ",
                                   golden.tokens.size()));
    }
    if (got[i] == golden.tokens[i]) continue;
    return Mismatch(golden, absl::StrCat("token ", i, " is ", got[i],
                                         ", expected ", golden.tokens[i]));
  }
  return absl::OkStatus();
}

absl::Status CompareLogits(const GoldenCase& golden,
                           const std::vector<float>& got) {
  if (golden.logits.empty()) return absl::OkStatus();
  if (got.size() != golden.logits.size()) {
    return Mismatch(
        golden, absl::StrCat("the model has ", got.size(), " logits, expected ",
                             golden.logits.size()));
  }
  double squares = 0;
  for (const float v : golden.logits) squares += double{v} * v;
  const double rms =
      std::sqrt(squares / static_cast<double>(golden.logits.size()));
  const double limit = golden.tolerance * rms;
  for (size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(double{got[i]} - golden.logits[i]);
    if (off <= limit) continue;  // false for NaN
    return Mismatch(golden,
                    absl::StrCat("logit ", i, " is ", got[i], ", expected ",
                                 golden.logits[i], ": off by ", off,
                                 ", the limit is ", limit, " (tolerance ",
                                 golden.tolerance, " x RMS ", rms, ")"));
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
