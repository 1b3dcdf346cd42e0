#include "tests/layers/layer_rules.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace lorikeet::testing {
namespace {

bool NamesFiles(absl::string_view name) {
  return name.find_first_of(".*") != absl::string_view::npos;
}

// True if `name` with at most one `*` in it is all of `path`, or a folder of
// it.
bool Fits(absl::string_view name, absl::string_view path) {
  const size_t star = name.find('*');
  if (star != absl::string_view::npos) {
    const absl::string_view head = name.substr(0, star);
    const absl::string_view tail = name.substr(star + 1);
    return path.size() >= head.size() + tail.size() &&
           absl::StartsWith(path, head) && absl::EndsWith(path, tail);
  }
  return absl::ConsumePrefix(&path, name) &&
         (path.empty() || path.front() == '/');
}

// Returns `line` without comments. `in_comment` is the state of /* */ between
// lines.
std::string StripComments(absl::string_view line, bool* in_comment) {
  std::string out;
  while (!line.empty()) {
    if (*in_comment) {
      const size_t end = line.find("*/");
      if (end == absl::string_view::npos) return out;
      line.remove_prefix(end + 2);
      *in_comment = false;
    } else if (absl::StartsWith(line, "//")) {
      return out;
    } else if (absl::ConsumePrefix(&line, "/*")) {
      *in_comment = true;
    } else {
      out += line.front();
      line.remove_prefix(1);
    }
  }
  return out;
}

absl::string_view TopFolder(absl::string_view path) {
  return path.substr(0, path.find('/'));
}

// "tests/model/x_test.cc" -> "model/x_test.cc".
absl::string_view Mirrored(absl::string_view path) {
  const size_t slash = path.find('/');
  return slash == absl::string_view::npos ? "" : path.substr(slash + 1);
}

}  // namespace

std::vector<Include> FindIncludes(absl::string_view text) {
  std::vector<Include> includes;
  bool in_comment = false;
  int number = 0;
  for (absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++number;
    // "//" may stand in a header's name as well as start a comment.
    const bool was_in_comment = in_comment;
    const std::string stripped = StripComments(raw, &in_comment);
    absl::string_view line =
        absl::StripAsciiWhitespace(was_in_comment ? stripped : raw);
    if (absl::StripAsciiWhitespace(stripped).empty()) continue;
    if (!absl::ConsumePrefix(&line, "#")) continue;
    line = absl::StripLeadingAsciiWhitespace(line);
    if (!absl::ConsumePrefix(&line, "include")) continue;
    line = absl::StripLeadingAsciiWhitespace(line);
    if (line.empty() || (line.front() != '"' && line.front() != '<')) continue;
    const char close = line.front() == '"' ? '"' : '>';
    line.remove_prefix(1);
    const size_t end = line.find(close);
    if (end == absl::string_view::npos) continue;
    includes.push_back({std::string(line.substr(0, end)), number});
  }
  return includes;
}

absl::StatusOr<LayerRules> LayerRules::Parse(absl::string_view text) {
  LayerRules rules;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, ": ");
    if (parts.size() != 2 || parts[0].empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " is not NAME: WORD..."));
    }
    Rule rule;
    rule.line = number;
    rule.words = absl::StrSplit(parts[1], ' ', absl::SkipEmpty());
    absl::string_view name = parts[0];
    const bool is_fence = absl::ConsumePrefix(&name, "<");
    if (is_fence && !absl::ConsumeSuffix(&name, ">")) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " has < without >"));
    }
    rule.name = std::string(name);
    std::vector<Rule>& list = is_fence ? rules.fences_ : rules.layers_;
    for (const Rule& other : list) {
      if (other.name == rule.name) {
        return absl::InvalidArgumentError(
            absl::StrCat("line ", number, " repeats line ", other.line));
      }
    }
    list.push_back(std::move(rule));
  }
  return rules;
}

std::string LayerRules::Rule::ToString() const {
  return absl::StrCat("layers.txt:", line, ": ", name, ": ",
                      absl::StrJoin(words, " "));
}

const LayerRules::Rule* LayerRules::FindLayer(absl::string_view path,
                                              bool folders_only) const {
  const Rule* best = nullptr;
  for (const Rule& rule : layers_) {
    if (folders_only && NamesFiles(rule.name)) continue;
    if (!Fits(rule.name, path)) continue;
    if (best == nullptr || rule.name.size() > best->name.size()) best = &rule;
  }
  return best;
}

const LayerRules::Rule* LayerRules::FindFence(absl::string_view path,
                                              absl::string_view header) const {
  for (const Rule& fence : fences_) {
    if (!Fits(fence.name, header)) continue;
    const bool is_inside =
        std::any_of(fence.words.begin(), fence.words.end(),
                    [&](const std::string& w) { return Fits(w, path); });
    if (!is_inside) return &fence;
  }
  return nullptr;
}

bool LayerRules::IsOurs(absl::string_view header) const {
  return std::any_of(layers_.begin(), layers_.end(), [&](const Rule& rule) {
    return TopFolder(rule.name) == TopFolder(header);
  });
}

bool LayerRules::MayInclude(absl::string_view path, const Rule& layer,
                            absl::string_view header) const {
  const bool is_generated = absl::EndsWith(header, ".pb.h");
  const Rule* unit = FindLayer(header, /*folders_only=*/true);
  if (!is_generated && unit == &layer &&
      path.substr(0, path.rfind('/')) == header.substr(0, header.rfind('/'))) {
    return true;
  }
  for (const std::string& word : layer.words) {
    if (word == "*") return true;
    if (word == "mirrored") {
      const absl::string_view inner = Mirrored(path);
      const Rule* rule = FindLayer(inner, /*folders_only=*/true);
      if (rule != nullptr && (unit == rule || MayInclude(inner, *rule, header)))
        return true;
    } else if (is_generated) {
      if (word == "proto") return true;
    } else if (NamesFiles(word) ? Fits(word, header)
                                : unit != nullptr && unit->name == word) {
      return true;
    } else if (word == header.substr(0, header.rfind('/'))) {
      return true;  // a folder below one that has the line: tests/testing
    }
  }
  return false;
}

std::optional<std::string> LayerRules::Verdict(absl::string_view path,
                                               absl::string_view header) const {
  if (const Rule* fence = FindFence(path, header); fence != nullptr) {
    return absl::StrCat(header, " is fenced in: layers.txt:", fence->line,
                        ": <", fence->name,
                        ">: ", absl::StrJoin(fence->words, " "));
  }
  if (!IsOurs(header) && !absl::EndsWith(header, ".pb.h")) return std::nullopt;
  const Rule* layer = FindLayer(path, /*folders_only=*/false);
  if (layer == nullptr) return "no line of layers.txt is about this file";
  if (MayInclude(path, *layer, header)) return std::nullopt;
  return absl::StrCat(header, " is not below it: ", layer->ToString());
}

std::vector<std::string> LayerRules::Check(absl::string_view path,
                                           absl::string_view text) const {
  std::vector<std::string> messages;
  for (const Include& include : FindIncludes(text)) {
    const std::optional<std::string> verdict = Verdict(path, include.header);
    if (verdict.has_value()) {
      messages.push_back(absl::StrCat(path, ":", include.line, ": ", *verdict));
    }
  }
  return messages;
}

}  // namespace lorikeet::testing
