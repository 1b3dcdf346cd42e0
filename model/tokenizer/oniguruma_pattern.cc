#include "model/tokenizer/oniguruma_pattern.h"

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/unicode_classes.h"

namespace lorikeet {
namespace {

// Returns the gaps between `ranges`: for "not in" within a class.
std::vector<CodePointRange> Complement(std::span<const CodePointRange> ranges) {
  std::vector<CodePointRange> out;
  char32_t next = 0;
  // PCRE2 refuses a class that names surrogates, so they end a range.
  const auto add = [&](char32_t first, char32_t last) {
    if (first < 0xD800 && last > 0xDFFF) {
      out.push_back({first, 0xD7FF});
      out.push_back({0xE000, last});
    } else if (first <= last) {
      out.push_back({first, last});
    }
  };
  for (const CodePointRange& r : ranges) {
    if (r.first > next) add(next, r.first - 1);
    next = r.last + 1;
  }
  add(next, 0x10FFFF);
  return out;
}

// PCRE2 knows the short names of categories only.
absl::string_view ShortPropertyName(absl::string_view name) {
  static constexpr std::pair<absl::string_view, absl::string_view> kNames[] = {
      {"letter", "L"}, {"mark", "M"},       {"number", "N"},
      {"punct", "P"},  {"symbol", "S"},     {"separator", "Z"},
      {"other", "C"},  {"punctuation", "P"}};
  const std::string lower = absl::AsciiStrToLower(name);
  for (const auto& [onig, pcre] : kNames) {
    if (lower == onig) return pcre;
  }
  return name;
}

// What each name of a POSIX class is in a PCRE2 class. Oniguruma's \w differs
// from [:word:] in six fractions and superscripts of Latin-1.
std::string PosixClassInside(absl::string_view name) {
  const auto newer = [](std::initializer_list<const char*> categories) {
    std::string out;
    for (const char* c : categories) out += NewerPatternRanges(c);
    return out;
  };
  if (name == "alpha") {
    // U+0363..U+036F are alphabetic since Unicode 16.
    return "\\p{Alphabetic}\\x{363}-\\x{36f}" + newer({"L"});
  }
  if (name == "alnum")
    return PosixClassInside("alpha") + PosixClassInside("digit");
  if (name == "digit") return "\\p{Nd}" + newer({"Nd"});
  if (name == "lower") return "\\p{Lowercase}" + newer({"Ll"});
  if (name == "upper") return "\\p{Uppercase}" + newer({"Lu"});
  if (name == "punct") return "\\p{P}\\p{S}" + newer({"P", "S"});
  if (name == "space") return PatternRanges(WhiteSpaceRanges());
  if (name == "xdigit") return "0-9A-Fa-f";
  if (name == "word") {
    return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" + newer({"L", "M", "Nd"});
  }
  return "";
}

std::string WordClassInside() {
  return PosixClassInside("word") +
         "\\x{b2}\\x{b3}\\x{b9}\\x{bc}\\x{bd}\\x{be}";
}

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    out_ = "(?m)";  // Ruby's ^ and $
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        RETURN_IF_ERROR(ClassCharacter());
      } else if (pattern_[at_] == '[') {
        OpenClass();
      } else if (absl::StartsWith(Rest(), "(?")) {
        Group();
      } else {
        out_ += pattern_[at_++];
      }
    }
    return std::move(out_);
  }

 private:
  absl::string_view Rest() const { return pattern_.substr(at_); }

  absl::Status Unimplemented(absl::string_view what) const {
    return absl::UnimplementedError(absl::StrCat("regular expression ",
                                                 Quote(pattern_), " uses ",
                                                 what, " at offset ", at_));
  }

  void OpenClass() {
    in_class_ = true;
    out_ += pattern_[at_++];
    if (absl::StartsWith(Rest(), "^")) out_ += pattern_[at_++];
    if (absl::StartsWith(Rest(), "]")) out_ += pattern_[at_++];
  }

  absl::Status ClassCharacter() {
    if (absl::StartsWith(Rest(), "&&")) {
      return Unimplemented("an intersection of classes");
    }
    if (absl::StartsWith(Rest(), "[:")) {
      const size_t end = Rest().find(":]");
      const std::string inside =
          end == absl::string_view::npos
              ? ""
              : PosixClassInside(Rest().substr(2, end - 2));
      if (inside.empty()) return Unimplemented("an unknown POSIX class");
      out_ += inside;
      at_ += end + 2;
      return absl::OkStatus();
    }
    if (pattern_[at_] == '[') return Unimplemented("a class within a class");
    if (pattern_[at_] == ']') in_class_ = false;
    out_ += pattern_[at_++];
    return absl::OkStatus();
  }

  // "(?m:" and "(?i-m)": Ruby's m is PCRE2's s.
  void Group() {
    const size_t end = Rest().find_first_not_of("imx-", 2);
    const bool flags = end != absl::string_view::npos && end > 2 &&
                       (Rest()[end] == ':' || Rest()[end] == ')');
    if (!flags) {
      absl::StrAppend(&out_, "(?");
      at_ += 2;
      return;
    }
    std::string options(Rest().substr(0, end));
    std::replace(options.begin(), options.end(), 'm', 's');
    out_ += options;
    at_ += end;
  }

  // Writes a set: as itself within a class, else as a class.
  void Set(absl::string_view inside) {
    if (in_class_) {
      absl::StrAppend(&out_, inside);
    } else {
      absl::StrAppend(&out_, "[", inside, "]");
    }
  }

  absl::Status Escape() {
    const char kind = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (kind == 'p' || kind == 'P') return Property(kind == 'P');
    if (kind == 'W' && in_class_) return Unimplemented("\\W within a class");
    if (kind == 's') {
      Set(PatternRanges(WhiteSpaceRanges()));
    } else if (kind == 'S') {
      Set(PatternRanges(Complement(WhiteSpaceRanges())));
    } else if (kind == 'w') {
      Set(WordClassInside());
    } else if (kind == 'W') {
      absl::StrAppend(&out_, "[^", WordClassInside(), "]");
    } else if (kind == 'd') {
      Set(absl::StrCat("\\p{Nd}", NewerPatternRanges("Nd")));
    } else if (kind == 'h') {
      Set("0-9A-Fa-f");
    } else if (kind == 'u' && Rest().size() >= 6) {
      absl::StrAppend(&out_, "\\x{", Rest().substr(2, 4), "}");
      at_ += 4;
    } else {
      absl::StrAppend(&out_, Rest().substr(0, 2));
    }
    at_ += std::min<size_t>(2, Rest().size());
    return absl::OkStatus();
  }

  absl::Status Property(bool negated) {
    const size_t close = Rest().find('}');
    if (Rest().size() < 3 || Rest()[2] != '{' ||
        close == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("regular expression ", Quote(pattern_),
                       " has no {name} behind \\p at offset ", at_));
    }
    absl::string_view name = Rest().substr(3, close - 3);
    if (absl::ConsumePrefix(&name, "^")) negated = !negated;
    name = ShortPropertyName(name);
    const std::string posix = PosixClassInside(absl::AsciiStrToLower(name));
    if (!posix.empty()) {
      if (negated && in_class_) return Unimplemented("\\P within a class");
      if (negated) {
        absl::StrAppend(&out_, "[^", posix, "]");
      } else {
        Set(posix);
      }
      at_ += close + 1;
      return absl::OkStatus();
    }
    const std::string newer =
        name.size() <= 2 ? NewerPatternRanges(name) : std::string();
    if (!negated) {
      Set(absl::StrCat("\\p{", name, "}", newer));
    } else if (in_class_ || newer.empty()) {
      // A class cannot take code points out again: the newer ones stay in.
      absl::StrAppend(&out_, "\\P{", name, "}");
    } else {
      absl::StrAppend(&out_, "[^\\p{", name, "}", newer, "]");
    }
    at_ += close + 1;
    return absl::OkStatus();
  }

  const absl::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOnigurumaPattern(
    absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace lorikeet
