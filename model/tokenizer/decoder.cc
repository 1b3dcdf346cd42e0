#include "model/tokenizer/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/text_pattern.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

// Returns the byte of "<0xNN>"; nullopt for any other token.
std::optional<char> ByteOfToken(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>') {
    return std::nullopt;
  }
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    int digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else {
      return std::nullopt;
    }
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

std::string ReplaceAll(absl::string_view text, const std::string& from,
                       const std::string& to) {
  return absl::StrReplaceAll(text, {{from, to}});
}

// Returns `token` without up to `start` and `stop` times `from` at its ends.
absl::string_view StripToken(absl::string_view token, const std::string& from,
                             int64_t start, int64_t stop) {
  for (int64_t i = 0; i < start; ++i) {
    if (!absl::ConsumePrefix(&token, from)) break;
  }
  for (int64_t i = 0; i < stop; ++i) {
    if (!absl::ConsumeSuffix(&token, from)) break;
  }
  return token;
}

// Appends U+FFFD for each byte.
std::string ReplacementPerByte(size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i)
    absl::StrAppend(&out, kReplacementCharacter);
  return out;
}

}  // namespace

Decoder::Decoder() { steps_.push_back({.kind = Kind::kJoin}); }

absl::StatusOr<Decoder> Decoder::FromJson(const Json& json) {
  Decoder result;
  if (json.is_null()) return result;
  result.steps_.clear();
  RETURN_IF_ERROR(result.Add(json, "decoder"));
  return result;
}

absl::Status Decoder::Add(const Json& json, const std::string& what) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", json.TypeName(), ", expected an object"));
  }
  JsonReader reader(json, what);
  RETURN_IF_ERROR(reader.Require("type"));
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "Sequence") {
    const Json* parts = reader.Get("decoders");
    if (parts == nullptr || !parts->is_array()) {
      return reader.Error("decoders", "is no list");
    }
    for (size_t i = 0; i < parts->items().size(); ++i) {
      RETURN_IF_ERROR(
          Add(parts->items()[i], absl::StrCat(what, ".decoders[", i, "]")));
    }
    return absl::OkStatus();
  }
  if (steps_.size() >= kMaxSteps) {
    return reader.Error("type", absl::StrCat("is step ", steps_.size(),
                                             ", the limit is ", kMaxSteps));
  }
  if (fused_ &&
      (type == "ByteLevel" || type == "ByteFallback" || type == "Metaspace")) {
    return absl::UnimplementedError(absl::StrCat(
        what, " (", Quote(type), ") stands behind a step that joins tokens"));
  }
  Step step;
  if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
    fused_ = true;
  } else if (type == "ByteFallback") {
    step.kind = Kind::kByteFallback;
  } else if (type == "Fuse") {
    step.kind = Kind::kFuse;
    fused_ = true;
  } else if (type == "Metaspace") {
    ASSIGN_OR_RETURN(step, ReadMetaspace(json, what));
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(step, ReadReplace(json, what));
  } else if (type == "Strip") {
    ASSIGN_OR_RETURN(step, ReadStrip(json, what));
  } else {
    return absl::UnimplementedError(absl::StrCat(
        what, " has the unsupported type ", Quote(type),
        " (supported: ByteFallback, ByteLevel, Fuse, Metaspace, Replace, "
        "Sequence, Strip)"));
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::StatusOr<Decoder::Step> Decoder::ReadReplace(const Json& json,
                                                   const std::string& what) {
  JsonReader reader(json, what);
  ASSIGN_OR_RETURN(const TextPattern pattern,
                   TextPattern::FromJson(json, what));
  if (pattern.is_regex()) {
    return absl::UnimplementedError(
        absl::StrCat(what, " field \"pattern\" is a regular expression"));
  }
  RETURN_IF_ERROR(reader.Require("content"));
  ASSIGN_OR_RETURN(std::string content, reader.String("content", ""));
  if (pattern.literal().empty()) return Step{.kind = Kind::kFuse};
  growth_ *= 1 + content.size() / pattern.literal().size();
  if (content.size() > kMaxGrowth || growth_ > kMaxGrowth) {
    return reader.Error("content", absl::StrCat("can make a text more than ",
                                                kMaxGrowth, " times as long"));
  }
  return Step{.kind = fused_ ? Kind::kReplaceFused : Kind::kReplace,
              .from = pattern.literal(),
              .to = std::move(content)};
}

absl::StatusOr<Decoder::Step> Decoder::ReadStrip(const Json& json,
                                                 const std::string& what) {
  constexpr int64_t kMaxStrip = 1 << 20;
  JsonReader reader(json, what);
  Step step = {.kind = fused_ ? Kind::kStripFused : Kind::kStrip};
  RETURN_IF_ERROR(reader.Require("content"));
  ASSIGN_OR_RETURN(step.from, reader.String("content", ""));
  if (CountCodePoints(step.from) != 1) {
    return reader.Error("content", absl::StrCat("is ", Quote(step.from),
                                                ", expected one character"));
  }
  ASSIGN_OR_RETURN(step.start, reader.Int("start", 0, 0, kMaxStrip));
  ASSIGN_OR_RETURN(step.stop, reader.Int("stop", 0, 0, kMaxStrip));
  return step;
}

absl::StatusOr<Decoder::Step> Decoder::ReadMetaspace(const Json& json,
                                                     const std::string& what) {
  JsonReader reader(json, what);
  Step step = {.kind = Kind::kMetaspace};
  RETURN_IF_ERROR(reader.Require("replacement"));
  ASSIGN_OR_RETURN(step.from, reader.String("replacement", ""));
  if (CountCodePoints(step.from) != 1) {
    return reader.Error(
        "replacement",
        absl::StrCat("is ", Quote(step.from), ", expected one character"));
  }
  ASSIGN_OR_RETURN(const bool add_prefix,
                   reader.Bool("add_prefix_space", true));
  ASSIGN_OR_RETURN(
      const std::string scheme,
      reader.String("prepend_scheme", add_prefix ? "always" : "never"));
  step.start = scheme != "never" ? 1 : 0;
  return step;
}

Decoder::State Decoder::Start(const StateOptions& options) const {
  State state;
  state.streaming_ = options.streaming;
  state.steps_.resize(steps_.size());
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (options.at_start_of_text) continue;
    state.steps_[i].count =
        steps_[i].kind == Kind::kStripFused ? steps_[i].start : 1;
  }
  return state;
}

void Decoder::Append(absl::string_view token, State* state,
                     std::string* out) const {
  Feed(0, token, state, out);
}

void Decoder::Feed(size_t i, absl::string_view token, State* state,
                   std::string* out) const {
  if (i == steps_.size()) {
    absl::StrAppend(out, token);
    return;
  }
  const Step& step = steps_[i];
  switch (step.kind) {
    case Kind::kJoin:
      if (state->steps_[i].count++ > 0) *out += ' ';
      Feed(i + 1, token, state, out);
      break;
    case Kind::kFuse:
      Feed(i + 1, token, state, out);
      break;
    case Kind::kReplace:
      Feed(i + 1, ReplaceAll(token, step.from, step.to), state, out);
      break;
    case Kind::kStrip:
      Feed(i + 1, StripToken(token, step.from, step.start, step.stop), state,
           out);
      break;
    case Kind::kMetaspace: {
      const bool at_start = state->steps_[i].count++ == 0;
      const bool drop = at_start && step.start > 0;
      Feed(i + 1, ReplaceAll(token, step.from, drop ? "" : " "), state, out);
      break;
    }
    case Kind::kByteLevel:
      FeedByteLevel(i, token, state, out);
      break;
    case Kind::kByteFallback:
      FeedByteFallback(i, token, state, out);
      break;
    case Kind::kReplaceFused:
      FeedReplaceFused(i, token, state, out);
      break;
    case Kind::kStripFused:
      FeedStripFused(i, token, state, out);
      break;
  }
}

void Decoder::FeedByteLevel(size_t i, absl::string_view token, State* state,
                            std::string* out) const {
  std::string& held = state->steps_[i].held;
  held += FromByteAlphabet(token);
  std::string text;
  held.erase(0, DecodeLossy(held, /*more=*/true, &text));
  if (!text.empty()) Feed(i + 1, text, state, out);
}

// A stream gives out the code points of a run as they become whole. Once the
// run is ill-formed, every byte of it is a U+FFFD, now and until it ends.
void Decoder::FeedByteFallback(size_t i, absl::string_view token, State* state,
                               std::string* out) const {
  State::StepState& mine = state->steps_[i];
  const std::optional<char> byte = ByteOfToken(token);
  if (!byte.has_value()) {
    EndByteRun(i, state, out);
    Feed(i + 1, token, state, out);
    return;
  }
  mine.held += *byte;
  if (!state->streaming_) return;
  if (!mine.broken) {
    const Utf8Prefix prefix = ClassifyUtf8Prefix(mine.held);
    if (prefix.unfinished) return;
    mine.broken = !prefix.well_formed;
  }
  const std::string text =
      mine.broken ? ReplacementPerByte(mine.held.size()) : mine.held;
  mine.held.clear();
  Feed(i + 1, text, state, out);
}

void Decoder::EndByteRun(size_t i, State* state, std::string* out) const {
  State::StepState& mine = state->steps_[i];
  const std::string held = std::exchange(mine.held, std::string());
  mine.broken = false;
  if (held.empty()) return;
  if (IsValidUtf8(held)) {
    Feed(i + 1, held, state, out);
    return;
  }
  // One token per byte, as steps behind may count tokens.
  for (size_t n = 0; n < held.size(); ++n) {
    Feed(i + 1, kReplacementCharacter, state, out);
  }
}

void Decoder::FeedReplaceFused(size_t i, absl::string_view text, State* state,
                               std::string* out) const {
  const Step& step = steps_[i];
  std::string& held = state->steps_[i].held;
  absl::StrAppend(&held, text);
  std::string done;
  size_t at = 0;
  for (size_t hit = held.find(step.from); hit != std::string::npos;
       hit = held.find(step.from, at)) {
    done.append(held, at, hit - at);
    done += step.to;
    at = hit + step.from.size();
  }
  // The longest end that may become a match.
  size_t keep = std::min(step.from.size() - 1, held.size() - at);
  while (keep > 0 && !absl::EndsWith(held, step.from.substr(0, keep))) --keep;
  done.append(held, at, held.size() - at - keep);
  held.erase(0, held.size() - keep);
  if (!done.empty()) Feed(i + 1, done, state, out);
}

void Decoder::FeedStripFused(size_t i, absl::string_view text, State* state,
                             std::string* out) const {
  const Step& step = steps_[i];
  State::StepState& mine = state->steps_[i];
  while (mine.count < step.start && !text.empty()) {
    // Something else stands at the start: nothing more to strip.
    mine.count =
        absl::ConsumePrefix(&text, step.from) ? mine.count + 1 : step.start;
  }
  absl::StrAppend(&mine.held, text);
  // What may turn out to be the end of the text.
  const absl::string_view kept = StripToken(mine.held, step.from, 0, step.stop);
  const std::string done(kept);
  mine.held.erase(0, done.size());
  if (!done.empty()) Feed(i + 1, done, state, out);
}

void Decoder::Finish(State* state, std::string* out) const {
  for (size_t i = 0; i < steps_.size(); ++i) {
    State::StepState& mine = state->steps_[i];
    if (steps_[i].kind == Kind::kByteFallback) {
      EndByteRun(i, state, out);
      continue;
    }
    const std::string held = std::exchange(mine.held, std::string());
    if (held.empty() || steps_[i].kind == Kind::kStripFused) continue;
    std::string text;
    DecodeLossy(held, /*more=*/false, &text);
    Feed(i + 1, text, state, out);
  }
}

std::string Decoder::TokenBytes(absl::string_view token) const {
  std::string bytes(token);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kByteLevel:
        bytes = FromByteAlphabet(bytes);
        break;
      case Kind::kByteFallback:
        if (const auto byte = ByteOfToken(bytes)) return std::string(1, *byte);
        break;
      case Kind::kReplace:
      case Kind::kReplaceFused:
        bytes = ReplaceAll(bytes, step.from, step.to);
        break;
      case Kind::kMetaspace:
        bytes = ReplaceAll(bytes, step.from, " ");
        break;
      default:
        break;
    }
  }
  return bytes;
}

}  // namespace lorikeet
