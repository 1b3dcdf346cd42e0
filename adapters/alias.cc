#include "adapters/alias.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/adapter_status.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

constexpr absl::Duration kMaxWindow = absl::Hours(24);
constexpr int64_t kMaxMinRequests = 1000;  // what a window keeps

absl::Status SplitError(absl::string_view message) {
  return WithReason(absl::InvalidArgumentError(message), "INVALID_SPLIT");
}

absl::Status RuleError(absl::string_view message) {
  return WithReason(absl::InvalidArgumentError(message), "INVALID_RULE");
}

// Uniform in [0, 2^64) over keys; other aliases and other purposes split the
// same keys in other places.
uint64_t HashOf(const Alias& alias, absl::string_view purpose,
                absl::string_view key) {
  Sha256 hash;
  hash.UpdateField(purpose);
  hash.UpdateField(alias.tenant);
  hash.UpdateField(alias.name);
  hash.UpdateField(key);
  return LoadLittleEndian<uint64_t>(hash.Finish().bytes().data());
}

// `hash` / 2^64 in [0, 1).
double Fraction(uint64_t hash) {
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

uint64_t SumOfWeights(const Alias& alias) {
  uint64_t sum = 0;
  for (const AliasTarget& target : alias.targets) sum += target.weight;
  return sum;
}

absl::Status CheckTargets(const Alias& alias) {
  const size_t count = alias.targets.size();
  if (count < 1 || count > kMaxAliasTargets) {
    return SplitError(absl::StrCat(
        "alias has ", count, " targets, expected 1 to ", kMaxAliasTargets));
  }
  for (size_t i = 0; i < count; ++i) {
    const AliasTarget& target = alias.targets[i];
    if (target.weight > kMaxAliasWeight) {
      return SplitError(absl::StrCat("weight ", target.weight, " of target ",
                                     target.ToString(), " is not in [0, ",
                                     kMaxAliasWeight, "]"));
    }
    for (size_t j = 0; j < i; ++j) {
      if (!target.IsSameVersion(alias.targets[j])) continue;
      return SplitError(
          absl::StrCat("target ", target.ToString(), " stands twice"));
    }
  }
  if (SumOfWeights(alias) == 0) {
    return SplitError("the weights of the targets sum to 0");
  }
  return absl::OkStatus();
}

absl::Status CheckRule(const RollbackRule& rule) {
  if (!(rule.max_error_rate >= 0 && rule.max_error_rate <= 1)) {
    return RuleError(absl::StrCat("max_error_rate ", rule.max_error_rate,
                                  " is not in [0, 1]"));
  }
  if (rule.max_latency <= absl::ZeroDuration()) {
    return RuleError(absl::StrCat("max_latency ",
                                  absl::FormatDuration(rule.max_latency),
                                  " is not greater than 0"));
  }
  if (rule.max_error_rate == 1 &&
      rule.max_latency == absl::InfiniteDuration()) {
    return RuleError("the rule has neither max_error_rate nor max_latency");
  }
  if (rule.window < absl::Seconds(1) || rule.window > kMaxWindow) {
    return RuleError(absl::StrCat("window ", absl::FormatDuration(rule.window),
                                  " is not in [1s, 24h]"));
  }
  if (rule.min_requests < 1 || rule.min_requests > kMaxMinRequests) {
    return RuleError(absl::StrCat("min_requests ", rule.min_requests,
                                  " is not in [1, ", kMaxMinRequests, "]"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string AliasTarget::ToString() const {
  return absl::StrCat(adapter, "@", version);
}

std::string AliasShadow::ToString() const {
  return absl::StrCat(adapter, "@", version);
}

std::string Alias::DescribeTargets() const {
  std::string text = absl::StrJoin(
      targets, " ", [&](std::string* out, const AliasTarget& target) {
        absl::StrAppend(out, target.ToString());
        if (targets.size() > 1) absl::StrAppend(out, ":", target.weight);
      });
  if (shadow.has_value()) {
    absl::StrAppend(&text, " shadow ", shadow->ToString(), ":", shadow->share);
  }
  return text;
}

bool Alias::RoutesLike(const Alias& other) const {
  return targets == other.targets && shadow == other.shadow &&
         rule == other.rule;
}

absl::Status CheckAlias(const Alias& alias) {
  absl::Status status = CheckTargets(alias);
  if (status.ok() && alias.shadow.has_value()) {
    const double share = alias.shadow->share;
    if (!(share > 0 && share <= 1)) {
      status =
          SplitError(absl::StrCat("shadow share ", share, " is not in (0, 1]"));
    }
  }
  if (status.ok() && alias.rule.has_value()) status = CheckRule(*alias.rule);
  return status;
}

size_t ChooseTarget(const Alias& alias, absl::string_view key) {
  if (key.empty() || alias.targets.size() == 1) return 0;
  const double point = Fraction(HashOf(alias, "target", key)) *
                       static_cast<double>(SumOfWeights(alias));
  uint64_t end = 0;
  size_t last = 0;  // with a weight: the end of the line may be rounded away
  for (size_t i = 0; i < alias.targets.size(); ++i) {
    if (alias.targets[i].weight == 0) continue;
    last = i;
    end += alias.targets[i].weight;
    if (point < static_cast<double>(end)) return i;
  }
  return last;
}

bool IsShadowed(const Alias& alias, absl::string_view key) {
  return alias.shadow.has_value() && !key.empty() &&
         Fraction(HashOf(alias, "shadow", key)) < alias.shadow->share;
}

Alias Promoted(const Alias& alias, const AliasTarget& target) {
  Alias promoted = alias;
  if (!alias.stable().IsSameVersion(target)) promoted.previous = alias.stable();
  promoted.targets = {{target.adapter, target.version, 1}};
  promoted.shadow.reset();
  return promoted;
}

absl::StatusOr<AliasTarget> CandidateOf(const Alias& alias) {
  if (alias.targets.size() == 2) return alias.targets[1];
  if (alias.targets.size() == 1 && alias.shadow.has_value()) {
    return AliasTarget{alias.shadow->adapter, alias.shadow->version, 1};
  }
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "alias ", DescribeName(alias.tenant, alias.name), " has ",
          alias.targets.size() - 1, " candidates: name the one to promote")),
      "ALIAS_NO_CANDIDATE");
}

absl::StatusOr<Alias> RolledBack(const Alias& alias) {
  Alias back = alias;
  back.shadow.reset();
  if (alias.targets.size() > 1 || alias.shadow.has_value()) {
    back.targets = {alias.stable()};
    back.targets[0].weight = 1;
    return back;
  }
  if (!alias.previous.has_value()) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "alias ", DescribeName(alias.tenant, alias.name),
            " has no candidate and no previous target to go back to")),
        "ALIAS_NO_PREVIOUS");
  }
  // Once: going back again would return to what was just given up.
  back.targets = {*alias.previous};
  back.previous.reset();
  return back;
}

}  // namespace lorikeet
