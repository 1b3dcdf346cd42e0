#include "adapters/target_modules.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base_parameters.h"
#include "base/regex.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

using Kind = ModuleName::Kind;

// From this many entries on PEFT shortens a list to suffixes.
constexpr size_t kShortenFrom = 20;

absl::Status FieldError(absl::string_view field, absl::string_view rest) {
  return absl::InvalidArgumentError(
      absl::StrCat("adapter_config.json field ", Quote(field), " ", rest));
}

// "c", "b.c", "a.b.c": the ends of a name, shortest first. Views into `name`.
std::vector<absl::string_view> Suffixes(absl::string_view name) {
  std::vector<absl::string_view> result;
  for (size_t dot = name.rfind('.'); dot != absl::string_view::npos;
       dot = dot == 0 ? absl::string_view::npos : name.rfind('.', dot - 1)) {
    result.push_back(name.substr(dot + 1));
  }
  result.push_back(name);
  return result;
}

// A list of names and ends of names. Entries are literal text.
class NameList {
 public:
  explicit NameList(const std::vector<std::string>& names)
      : names_(names.begin(), names.end()) {}

  enum class Match { kNone, kSuffix, kFullName };
  Match Find(absl::string_view name) const {
    if (names_.contains(name)) return Match::kFullName;
    for (const absl::string_view suffix : Suffixes(name)) {
      if (names_.contains(suffix)) return Match::kSuffix;
    }
    return Match::kNone;
  }
  size_t size() const { return names_.size(); }
  const absl::flat_hash_set<std::string>& names() const { return names_; }

 private:
  absl::flat_hash_set<std::string> names_;
};

// PEFT's _find_minimal_target_modules: the fewest, shortest suffixes that take
// the same modules. It matters, since layers_to_transform filters only names
// that matched as a suffix.
NameList Shortened(const NameList& list,
                   const std::vector<ModuleName>& modules) {
  absl::flat_hash_set<absl::string_view> other_suffixes;
  for (const ModuleName& module : modules) {
    if (list.Find(module.name) != NameList::Match::kNone) continue;
    for (const absl::string_view s : Suffixes(module.name)) {
      other_suffixes.insert(s);
    }
  }
  std::vector<std::vector<absl::string_view>> targets;
  for (const std::string& name : list.names()) {
    targets.push_back(Suffixes(name));
  }
  std::sort(targets.begin(), targets.end());
  absl::flat_hash_set<std::string> required;
  const auto is_covered = [&](absl::string_view item) {
    for (const absl::string_view s : Suffixes(item)) {
      // Python asks for "." + suffix at the end: a proper suffix.
      if (s.size() < item.size() && required.contains(s)) return true;
    }
    return false;
  };
  for (const auto& suffixes : targets) {
    for (const absl::string_view suffix : suffixes) {
      if (required.contains(suffix) || other_suffixes.contains(suffix)) {
        continue;
      }
      if (!is_covered(suffixes.back())) {
        required.insert(std::string(suffix));
        break;
      }
    }
  }
  if (required.empty() || required.size() >= list.size()) return list;
  return NameList(std::vector<std::string>(required.begin(), required.end()));
}

// layers_to_transform and layers_pattern.
class LayerFilter {
 public:
  static absl::StatusOr<LayerFilter> Create(const PeftConfig& peft,
                                            const ModelConfig& model) {
    LayerFilter filter;
    for (const int64_t layer : peft.layers_to_transform) {
      if (layer < 0 || layer >= model.num_layers) {
        return FieldError("layers_to_transform",
                          absl::StrCat("has ", layer, ", the model has layers ",
                                       "0 to ", model.num_layers - 1));
      }
      filter.layers_.insert(layer);
    }
    if (filter.layers_.empty()) return filter;
    if (peft.layers_pattern.empty()) {
      ASSIGN_OR_RETURN(Regex any,
                       Regex::Compile(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)"));
      filter.patterns_.push_back(std::move(any));
    }
    for (const std::string& pattern : peft.layers_pattern) {
      ASSIGN_OR_RETURN(
          Regex regex,
          CompilePythonRegex("layers_pattern", pattern, /*whole=*/false,
                             R"((?:^|.*?\.))", R"(\.(?P<idx>\d+)\.)"));
      filter.patterns_.push_back(std::move(regex));
    }
    return filter;
  }

  absl::StatusOr<bool> Takes(absl::string_view name) const {
    if (layers_.empty()) return true;
    for (const Regex& pattern : patterns_) {
      auto text = pattern.NamedGroupOfPrefixMatch(name, "idx");
      if (!text.ok()) {
        return FieldError("layers_pattern", text.status().message());
      }
      if (!text->has_value()) continue;
      int64_t layer = -1;
      return absl::SimpleAtoi(**text, &layer) && layers_.contains(layer);
    }
    return false;
  }

 private:
  absl::flat_hash_set<int64_t> layers_;
  std::vector<Regex> patterns_;
};

// One of exclude_modules and target_modules, ready to be asked.
class Chooser {
 public:
  static absl::StatusOr<Chooser> Create(absl::string_view field,
                                        const ModuleChoice& choice) {
    Chooser chooser(field, choice.names);
    if (choice.regex.has_value()) {
      ASSIGN_OR_RETURN(chooser.regex_, CompilePythonRegex(field, *choice.regex,
                                                          /*whole=*/true));
    }
    return chooser;
  }

  absl::StatusOr<NameList::Match> Find(absl::string_view name) const {
    if (!regex_.has_value()) return list_.Find(name);
    absl::StatusOr<bool> matches = regex_->FullMatch(name);
    if (!matches.ok()) return FieldError(field_, matches.status().message());
    return *matches ? NameList::Match::kFullName : NameList::Match::kNone;
  }

  const NameList& list() const { return list_; }
  void set_list(NameList list) { list_ = std::move(list); }

 private:
  Chooser(absl::string_view field, const std::vector<std::string>& names)
      : field_(field), list_(names) {}

  std::string field_;
  NameList list_;
  std::optional<Regex> regex_;
};

bool IsAllLinear(const ModuleChoice& choice) {
  return choice.regex.has_value() &&
         absl::EqualsIgnoreCase(*choice.regex, "all-linear");
}

std::string Describe(const ModuleChoice& choice) {
  if (choice.regex.has_value()) return Quote(*choice.regex);
  return Escape(absl::StrCat("[", absl::StrJoin(choice.names, ", "), "]"));
}

TargetModule MakeTarget(LinearId id, const ModelConfig& model) {
  return {id, NameOf(id), NameOf(id), InDim(model, id.projection),
          OutDim(model, id.projection)};
}

// modules_to_save as the patterns that keep a module from being adapted.
class SavedPatterns {
 public:
  static absl::StatusOr<SavedPatterns> Create(const PeftConfig& peft) {
    SavedPatterns result;
    for (const std::string& entry : peft.modules_to_save) {
      ASSIGN_OR_RETURN(
          Regex regex,
          CompilePythonRegex("modules_to_save", entry,
                             /*whole=*/false, R"((^|.*\.))", R"(($|\..*))"));
      result.patterns_.push_back(std::move(regex));
    }
    return result;
  }

  absl::StatusOr<bool> Take(absl::string_view name) const {
    for (const Regex& pattern : patterns_) {
      absl::StatusOr<bool> matches = pattern.PrefixMatch(name);
      if (!matches.ok()) {
        return FieldError("modules_to_save", matches.status().message());
      }
      if (*matches) return true;
    }
    return false;
  }

 private:
  std::vector<Regex> patterns_;
};

// On a tied base ensure_weight_tying gives both ends the low-rank part of one.
void AddTiedModule(const PeftConfig& peft, const ModelConfig& model,
                   std::vector<TargetModule>* modules) {
  if (!peft.ensure_weight_tying || !model.tie_word_embeddings) return;
  const auto find = [&](LinearId id) {
    return std::ranges::find(*modules, id, &TargetModule::id);
  };
  const LinearId embed = LinearId::EmbedTokens();
  const LinearId lm_head = LinearId::LmHead();
  const bool has_embed = find(embed) != modules->end();
  const bool has_lm_head = find(lm_head) != modules->end();
  if (!has_embed && !has_lm_head) return;
  if (!has_embed) modules->push_back(MakeTarget(embed, model));
  if (!has_lm_head) modules->push_back(MakeTarget(lm_head, model));
  find(has_embed ? lm_head : embed)->pattern_name =
      NameOf(has_embed ? embed : lm_head);
}

// Entries that take no module are fine to PEFT; people want to know.
void WarnOfIdleEntries(const std::vector<std::string>& names,
                       const std::vector<ModuleName>& modules,
                       std::vector<std::string>* warnings) {
  absl::flat_hash_set<absl::string_view> all;
  for (const ModuleName& module : modules) {
    for (const absl::string_view s : Suffixes(module.name)) all.insert(s);
  }
  std::vector<std::string> idle;
  for (const std::string& name : names) {
    if (!all.contains(name)) idle.push_back(name);
  }
  if (idle.empty()) return;
  warnings->push_back(absl::StrCat("target_modules takes no module by ",
                                   Escape(absl::StrJoin(idle, ", "))));
}

}  // namespace

std::vector<ModuleName> ModuleNames(const ModelConfig& model) {
  std::vector<ModuleName> names;
  const auto add = [&](std::string name, Kind kind, LinearId id = {}) {
    names.push_back(ModuleName{std::move(name), kind, id});
  };
  add("model", Kind::kOther);
  add("model.embed_tokens", Kind::kEmbedding, LinearId::EmbedTokens());
  add("model.layers", Kind::kOther);
  for (int64_t i = 0; i < model.num_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i);
    const auto linear = [&](absl::string_view part, Projection p) {
      add(absl::StrCat(layer, ".", part, ".",
                       kProjectionNames[static_cast<size_t>(p)]),
          Kind::kLinear, LinearId{static_cast<int32_t>(i), p});
    };
    add(layer, Kind::kOther);
    add(absl::StrCat(layer, ".self_attn"), Kind::kOther);
    for (const Projection p :
         {Projection::kQ, Projection::kK, Projection::kV, Projection::kO}) {
      linear("self_attn", p);
    }
    if (model.qk_norm) {
      add(absl::StrCat(layer, ".self_attn.q_norm"), Kind::kOther);
      add(absl::StrCat(layer, ".self_attn.k_norm"), Kind::kOther);
    }
    add(absl::StrCat(layer, ".mlp"), Kind::kOther);
    for (const Projection p :
         {Projection::kGate, Projection::kUp, Projection::kDown}) {
      linear("mlp", p);
    }
    add(absl::StrCat(layer, ".mlp.act_fn"), Kind::kOther);
    add(absl::StrCat(layer, ".input_layernorm"), Kind::kOther);
    add(absl::StrCat(layer, ".post_attention_layernorm"), Kind::kOther);
  }
  add("model.norm", Kind::kOther);
  add("model.rotary_emb", Kind::kOther);
  add("lm_head", Kind::kLmHead, LinearId::LmHead());
  return names;
}

bool IsSavedModule(const PeftConfig& peft, absl::string_view name) {
  // Views of the name and of all that it is part of.
  for (absl::string_view part = name; !part.empty();) {
    for (const std::string& entry : peft.modules_to_save) {
      if (absl::EndsWith(part, entry)) return true;
    }
    const size_t dot = part.rfind('.');
    part = dot == absl::string_view::npos ? "" : part.substr(0, dot);
  }
  return false;
}

absl::StatusOr<TargetModules> FindTargetModules(const PeftConfig& peft,
                                                const ModelConfig& model) {
  // All families that we serve have the same default.
  const ModuleChoice choice = peft.target_modules.value_or(
      ModuleChoice{std::nullopt, {"q_proj", "v_proj"}});
  const bool all_linear = IsAllLinear(choice);
  const std::vector<ModuleName> modules = ModuleNames(model);

  std::optional<Chooser> exclude;
  if (peft.exclude_modules.has_value()) {
    ASSIGN_OR_RETURN(exclude,
                     Chooser::Create("exclude_modules", *peft.exclude_modules));
  }
  ASSIGN_OR_RETURN(Chooser target, Chooser::Create("target_modules", choice));
  ASSIGN_OR_RETURN(const LayerFilter layers, LayerFilter::Create(peft, model));
  ASSIGN_OR_RETURN(const SavedPatterns saved, SavedPatterns::Create(peft));
  if (!peft.layers_to_transform.empty() &&
      target.list().size() >= kShortenFrom) {
    target.set_list(Shortened(target.list(), modules));
  }

  TargetModules result;
  for (const ModuleName& module : modules) {
    if (exclude.has_value()) {
      ASSIGN_OR_RETURN(const NameList::Match match, exclude->Find(module.name));
      if (match != NameList::Match::kNone) continue;
    }
    ASSIGN_OR_RETURN(const bool is_saved, saved.Take(module.name));
    if (is_saved) continue;
    if (all_linear) {
      if (module.kind != Kind::kLinear) continue;
    } else {
      ASSIGN_OR_RETURN(const NameList::Match match, target.Find(module.name));
      if (match == NameList::Match::kNone) continue;
      if (match == NameList::Match::kSuffix) {
        ASSIGN_OR_RETURN(const bool takes, layers.Takes(module.name));
        if (!takes) continue;
      }
    }
    if (module.kind == Kind::kOther) {
      return FieldError(
          "target_modules",
          absl::StrCat("takes ", Quote(module.name),
                       ", which is neither Linear nor Embedding"));
    }
    result.modules.push_back(MakeTarget(module.id, model));
  }
  if (result.modules.empty()) {
    return FieldError(
        "target_modules",
        absl::StrCat("is ", Describe(choice), ": no module of the model is ",
                     "adapted after \"exclude_modules\" and ",
                     "\"layers_to_transform\""));
  }
  AddTiedModule(peft, model, &result.modules);
  std::sort(
      result.modules.begin(), result.modules.end(),
      [](const TargetModule& a, const TargetModule& b) { return a.id < b.id; });
  WarnOfIdleEntries(choice.names, modules, &result.warnings);
  return result;
}

}  // namespace lorikeet
