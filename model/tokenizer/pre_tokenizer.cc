#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/text_pattern.h"
#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

// The pattern that ByteLevel applies with use_regex, from GPT-2.
constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|)"
    R"(\s+(?!\S)|\s+)";

// What becomes of the matches.
enum class Behavior {
  kRemoved,             // a match vanishes
  kIsolated,            // each match is a piece
  kMergedWithPrevious,  // a match ends the piece before it
  kMergedWithNext,      // a match begins the piece behind it
  kContiguous,          // neighbouring matches are one piece
};

struct Part {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

using Matches = std::vector<std::pair<size_t, size_t>>;

// Returns the matches and what lies between them, in order.
void FillParts(const Matches& matches, size_t size, std::vector<Part>* parts) {
  parts->clear();
  size_t at = 0;
  for (const auto& [begin, end] : matches) {
    if (begin > at) parts->push_back({at, begin, false});
    parts->push_back({begin, end, true});
    at = end;
  }
  if (at < size) parts->push_back({at, size, false});
}

// Joins neighbours as `behavior` asks. Only one of two matches in a row is
// merged into its neighbour: "  x" merged with next is " ", " x".
void MergeParts(Behavior behavior, std::vector<Part>* parts) {
  if (behavior == Behavior::kIsolated || behavior == Behavior::kRemoved) return;
  const bool backwards = behavior == Behavior::kMergedWithNext;
  if (backwards) std::reverse(parts->begin(), parts->end());
  std::vector<Part> merged;
  bool previous_is_match = false;
  for (const Part& part : *parts) {
    const bool join = behavior == Behavior::kContiguous
                          ? part.is_match == previous_is_match
                          : part.is_match && !previous_is_match;
    if (!join || merged.empty()) {
      merged.push_back(part);
    } else if (backwards) {
      merged.back().begin = part.begin;
    } else {
      merged.back().end = part.end;
    }
    previous_is_match = part.is_match;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  *parts = std::move(merged);
}

// Cuts every piece of `list` at what `find` gives for it.
absl::Status SplitPieces(
    Behavior behavior, bool invert, PieceList* list,
    absl::FunctionRef<absl::Status(absl::string_view, Matches*)> find) {
  std::vector<Piece> out;
  out.reserve(list->pieces.size());
  Matches matches;
  std::vector<Part> parts;
  for (const Piece& piece : list->pieces) {
    matches.clear();
    RETURN_IF_ERROR(find(piece.text, &matches));
    FillParts(matches, piece.text.size(), &parts);
    if (invert) {
      for (Part& part : parts) part.is_match = !part.is_match;
    }
    MergeParts(behavior, &parts);
    for (const Part& part : parts) {
      if (part.begin == part.end) continue;
      if (behavior == Behavior::kRemoved && part.is_match) continue;
      out.push_back({piece.text.substr(part.begin, part.end - part.begin),
                     piece.at_start && part.begin == 0});
    }
  }
  list->pieces = std::move(out);
  return absl::OkStatus();
}

class SplitStep final : public PreTokenizerStep {
 public:
  SplitStep(TextPattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  absl::Status Apply(PieceList* list) const override {
    return SplitPieces(behavior_, invert_, list,
                       [&](absl::string_view text, Matches* matches) {
                         return pattern_.ForEachMatch(
                             text, [&](size_t begin, size_t end) {
                               matches->emplace_back(begin, end);
                             });
                       });
  }

 private:
  const TextPattern pattern_;
  const Behavior behavior_;
  const bool invert_;
};

class DigitsStep final : public PreTokenizerStep {
 public:
  explicit DigitsStep(bool individual)
      : behavior_(individual ? Behavior::kIsolated : Behavior::kContiguous) {}

  absl::Status Apply(PieceList* list) const override {
    return SplitPieces(behavior_, /*invert=*/false, list, FindDigits);
  }

 private:
  static bool IsDigit(absl::string_view text, size_t i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) < 0x80) return c >= '0' && c <= '9';
    return InRanges(DigitRanges(), CodePointAt(text, i));
  }

  static absl::Status FindDigits(absl::string_view text, Matches* matches) {
    for (size_t i = 0; i < text.size();) {
      const size_t end = i + Utf8Length(text[i]);
      if (IsDigit(text, i)) matches->emplace_back(i, end);
      i = end;
    }
    return absl::OkStatus();
  }

  const Behavior behavior_;
};

// Puts `prefix` before every piece that does not begin with it.
class PrefixStep final : public PreTokenizerStep {
 public:
  PrefixStep(std::string prefix, bool only_at_start)
      : prefix_(std::move(prefix)), only_at_start_(only_at_start) {}

  absl::Status Apply(PieceList* list) const override {
    for (Piece& piece : list->pieces) {
      if (only_at_start_ && !piece.at_start) continue;
      if (absl::StartsWith(piece.text, prefix_)) continue;
      piece.text = list->Keep(absl::StrCat(prefix_, piece.text));
    }
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
  const bool only_at_start_;
};

// Writes every piece in the byte alphabet.
class ByteAlphabetStep final : public PreTokenizerStep {
 public:
  absl::Status Apply(PieceList* list) const override {
    for (Piece& piece : list->pieces) {
      piece.text = list->Keep(ToByteAlphabet(piece.text));
    }
    return absl::OkStatus();
  }
};

// Writes `to` for every space.
class SpaceStep final : public PreTokenizerStep {
 public:
  explicit SpaceStep(std::string to) : to_(std::move(to)) {}

  absl::Status Apply(PieceList* list) const override {
    for (Piece& piece : list->pieces) {
      if (!absl::StrContains(piece.text, ' ')) continue;
      std::string text;
      text.reserve(piece.text.size() * 2);
      for (const char c : piece.text) {
        if (c == ' ') {
          text += to_;
        } else {
          text += c;
        }
      }
      piece.text = list->Keep(std::move(text));
    }
    return absl::OkStatus();
  }

 private:
  const std::string to_;
};

using StepPtr = std::shared_ptr<const PreTokenizerStep>;

absl::StatusOr<Behavior> ReadBehavior(JsonReader& reader) {
  static constexpr std::pair<absl::string_view, Behavior> kNames[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  RETURN_IF_ERROR(reader.Require("behavior"));
  ASSIGN_OR_RETURN(const std::string name, reader.String("behavior", ""));
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  return reader.Error(
      "behavior",
      absl::StrCat("is ", Quote(name),
                   ", expected Removed, Isolated, MergedWithPrevious, "
                   "MergedWithNext or Contiguous"));
}

absl::Status AddSplit(const Json& json, const std::string& what,
                      std::vector<StepPtr>* steps) {
  JsonReader reader(json, what);
  ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::FromJson(json, what));
  ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(reader));
  ASSIGN_OR_RETURN(const bool invert, reader.Bool("invert", false));
  steps->push_back(
      std::make_shared<SplitStep>(std::move(pattern), behavior, invert));
  return absl::OkStatus();
}

// Older files have add_prefix_space instead of prepend_scheme.
absl::StatusOr<std::string> ReadPrependScheme(JsonReader& reader) {
  ASSIGN_OR_RETURN(const bool add_prefix,
                   reader.Bool("add_prefix_space", true));
  ASSIGN_OR_RETURN(std::string scheme,
                   reader.String("prepend_scheme", "always"));
  if (scheme != "first" && scheme != "always" && scheme != "never") {
    return reader.Error("prepend_scheme",
                        absl::StrCat("is ", Quote(scheme),
                                     ", expected first, always or never"));
  }
  if (!add_prefix && scheme != "never") {
    if (reader.Get("prepend_scheme") != nullptr) {
      return reader.Error(
          "add_prefix_space",
          absl::StrCat("is false, but prepend_scheme is ", Quote(scheme)));
    }
    scheme = "never";
  }
  return scheme;
}

absl::Status AddMetaspace(const Json& json, const std::string& what,
                          std::vector<StepPtr>* steps) {
  JsonReader reader(json, what);
  RETURN_IF_ERROR(reader.Require("replacement"));
  ASSIGN_OR_RETURN(const std::string replacement,
                   reader.String("replacement", ""));
  if (CountCodePoints(replacement) != 1) {
    return reader.Error(
        "replacement",
        absl::StrCat("is ", Quote(replacement), ", expected one character"));
  }
  ASSIGN_OR_RETURN(const std::string scheme, ReadPrependScheme(reader));
  ASSIGN_OR_RETURN(const bool split, reader.Bool("split", true));
  steps->push_back(std::make_shared<SpaceStep>(replacement));
  if (scheme != "never") {
    steps->push_back(
        std::make_shared<PrefixStep>(replacement, scheme == "first"));
  }
  if (split) {
    steps->push_back(std::make_shared<SplitStep>(
        TextPattern::FromLiteral(replacement), Behavior::kMergedWithNext,
        /*invert=*/false));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view PieceList::Keep(std::string text) {
  return kept_.emplace_back(std::move(text));
}

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const Json& json) {
  PreTokenizer result;
  if (!json.is_null()) RETURN_IF_ERROR(result.Add(json, "pre_tokenizer"));
  return result;
}

absl::Status PreTokenizer::AddByteLevel(const Json& json,
                                        const std::string& what) {
  JsonReader reader(json, what);
  ASSIGN_OR_RETURN(const bool add_prefix,
                   reader.Bool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, reader.Bool("use_regex", true));
  // trim_offsets concerns positions in the text, which we do not give out.
  RETURN_IF_ERROR(reader.Bool("trim_offsets", true).status());
  if (add_prefix) {
    steps_.push_back(std::make_shared<PrefixStep>(" ", false));
  }
  if (use_regex) {
    ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::FromRegex(kGpt2Pattern));
    steps_.push_back(std::make_shared<SplitStep>(
        std::move(pattern), Behavior::kIsolated, /*invert=*/false));
  }
  byte_level_ = true;
  return absl::OkStatus();
}

absl::Status PreTokenizer::Add(const Json& json, const std::string& what) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", json.TypeName(), ", expected an object"));
  }
  JsonReader reader(json, what);
  RETURN_IF_ERROR(reader.Require("type"));
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "Sequence") {
    const Json* parts = reader.Get("pretokenizers");
    if (parts == nullptr || !parts->is_array()) {
      return reader.Error("pretokenizers", "is no list");
    }
    for (size_t i = 0; i < parts->items().size(); ++i) {
      RETURN_IF_ERROR(Add(parts->items()[i],
                          absl::StrCat(what, ".pretokenizers[", i, "]")));
    }
    return absl::OkStatus();
  }
  if (steps_.size() >= kMaxSteps) {
    return reader.Error("type", absl::StrCat("is step ", steps_.size(),
                                             ", the limit is ", kMaxSteps));
  }
  // A step behind a ByteLevel sees the byte alphabet.
  if (byte_level_) {
    if (type == "ByteLevel") {
      return absl::UnimplementedError(
          absl::StrCat(what, " is a second ByteLevel"));
    }
    steps_.push_back(std::make_shared<ByteAlphabetStep>());
    byte_level_ = false;
  }
  if (type == "ByteLevel") return AddByteLevel(json, what);
  if (type == "Split") return AddSplit(json, what, &steps_);
  if (type == "Metaspace") return AddMetaspace(json, what, &steps_);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual,
                     reader.Bool("individual_digits", false));
    steps_.push_back(std::make_shared<DigitsStep>(individual));
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(
      what, " has the unsupported type ", Quote(type),
      " (supported: ByteLevel, Digits, Metaspace, Sequence, Split)"));
}

absl::Status PreTokenizer::Cut(PieceList* list) const {
  for (const auto& step : steps_) RETURN_IF_ERROR(step->Apply(list));
  return absl::OkStatus();
}

}  // namespace lorikeet
