#include "server/training/training_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"
#include "train/memory_estimate.h"

namespace lorikeet {
namespace {

constexpr int64_t kMinTokenBudget = 64;
constexpr int64_t kTokenBudgetStep = 32;
constexpr int64_t kMaxTokenBudget = 4096;

// The trainer names options as the command line does: "--token-budget is 0";
// here they are fields: "options.token_budget is 0".
absl::Status AsFields(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  const std::string in(status.message());
  std::string out;
  for (size_t i = 0; i < in.size(); ++i) {
    const bool is_option = in.compare(i, 2, "--") == 0 && i + 2 < in.size() &&
                           absl::ascii_islower(in[i + 2]) &&
                           (i == 0 || in[i - 1] == ' ');
    if (!is_option) {
      out += in[i];
      continue;
    }
    out += "options.";
    for (i += 2; i < in.size() && (absl::ascii_islower(in[i]) || in[i] == '-');
         ++i) {
      out += in[i] == '-' ? '_' : in[i];
    }
    --i;
  }
  return WithReason(absl::InvalidArgumentError(out), "INVALID_FIELD");
}

// The budget that the examples need, a multiple of kTokenBudgetStep.
int64_t BudgetOf(const TrainingData& data) {
  int64_t longest = kMinTokenBudget;
  for (const TrainSequence& s : data.data.sequences()) {
    longest = std::max(longest, static_cast<int64_t>(s.tokens.size()));
  }
  if (data.eval.has_value()) {
    for (const TrainSequence& s : data.eval->sequences()) {
      longest = std::max(longest, static_cast<int64_t>(s.tokens.size()));
    }
  }
  return (longest + kTokenBudgetStep - 1) / kTokenBudgetStep * kTokenBudgetStep;
}

AdapterStore::AliasRequest::Target TargetOf(const JobRecord& job,
                                            const std::string& adapter,
                                            uint32_t version, uint32_t weight) {
  AdapterStore::AliasRequest::Target target;
  target.ref.tenant = job.tenant;
  target.ref.name = adapter;
  target.ref.version = version;
  target.weight = weight;
  return target;
}

absl::Status PutCanary(AdapterStore& store, const JobRecord& job,
                       uint32_t version) {
  AdapterStore::AliasRequest request;
  request.tenant = job.tenant;
  request.alias = job.canary->alias;
  request.change.actor = absl::StrCat("training ", job.id);
  const absl::StatusOr<AliasInfo> alias =
      store.GetAlias(job.tenant, job.canary->alias);
  if (alias.ok()) {
    const AliasTarget& stable = alias->targets.front();
    if (stable.adapter == job.adapter && stable.version == version) {
      return absl::OkStatus();
    }
    request.targets.push_back(TargetOf(job, stable.adapter, stable.version,
                                       100 - job.canary->percent));
    request.targets.push_back(
        TargetOf(job, job.adapter, version, job.canary->percent));
    request.rule = alias->rule;
  } else if (absl::IsNotFound(alias.status())) {
    request.targets.push_back(TargetOf(job, job.adapter, version, 1));
  } else {
    return alias.status();
  }
  return store.PutAlias(request).status();
}

}  // namespace

TrainingService::TrainingService(const ModelInfo& model, AdapterStore& store,
                                 FileSystem& fs, std::vector<std::string> roots,
                                 JobRunner* runner, absl::Status why_not)
    : model_(model),
      store_(store),
      fs_(fs),
      roots_(std::move(roots)),
      runner_(runner),
      why_not_(std::move(why_not)) {}

absl::Status TrainingService::CheckNames(const CreateJobInput& input) {
  if (input.tenant != kDefaultTenant) {
    return WithReason(
        absl::NotFoundError(absl::StrCat("tenant ", Quote(input.tenant),
                                         " does not exist: the only one is ",
                                         Quote(kDefaultTenant))),
        "TENANT_NOT_FOUND");
  }
  const auto check = [&](const char* field,
                         const std::string& name) -> absl::Status {
    RETURN_IF_ERROR(WithField(
        WithDefaultReason(CheckId(field, name), "INVALID_NAME"), field));
    if (name != model_.id) return absl::OkStatus();
    return WithReason(
        absl::AlreadyExistsError(
            absl::StrCat(field, " ", Quote(name), " is the base model's name")),
        "ADAPTER_EXISTS");
  };
  RETURN_IF_ERROR(check("job.adapter", input.adapter));
  if (store_.GetAlias(input.tenant, input.adapter).ok()) {
    return WithReason(
        absl::AlreadyExistsError(absl::StrCat(
            "job.adapter ", Quote(input.adapter), " is the name of an alias")),
        "ADAPTER_EXISTS");
  }
  if (!input.canary.has_value()) return absl::OkStatus();
  RETURN_IF_ERROR(check("job.canary.alias", input.canary->alias));
  if (input.canary->alias == input.adapter ||
      store_.Get(input.tenant, input.canary->alias).ok()) {
    return WithReason(absl::AlreadyExistsError(absl::StrCat(
                          "job.canary.alias ", Quote(input.canary->alias),
                          " is the name of an adapter")),
                      "ADAPTER_EXISTS");
  }
  if (input.canary->percent < 1 || input.canary->percent > 99) {
    return RangeError("job.canary.percent", absl::StrCat(input.canary->percent),
                      "[1, 99]");
  }
  return absl::OkStatus();
}

absl::Status TrainingService::CheckPath(const std::string& field,
                                        const std::string& path) {
  ASSIGN_OR_RETURN(const std::string canonical, fs_.Canonical(path));
  for (const std::string& root : roots_) {
    const absl::StatusOr<std::string> allowed = fs_.Canonical(root);
    absl::string_view rest = canonical;
    if (allowed.ok() && absl::ConsumePrefix(&rest, *allowed) &&
        absl::ConsumePrefix(&rest, "/")) {
      return absl::OkStatus();
    }
  }
  return WithField(
      WithReason(absl::PermissionDeniedError(absl::StrCat(
                     field, " ", Quote(path), " is below no --training-root")),
                 "PATH_NOT_ALLOWED"),
      field);
}

absl::StatusOr<std::string> TrainingService::ReadSource(
    const std::string& field, const DataSource& source) {
  if (source.local_path.empty()) {
    const int64_t size = static_cast<int64_t>(source.content.size());
    if (size > kMaxInlineDataBytes) {
      return RangeError(absl::StrCat(field, ".content"),
                        absl::StrCat(size, " bytes"),
                        absl::StrCat("[1, ", kMaxInlineDataBytes, "]"));
    }
    return source.content;
  }
  const std::string path_field = absl::StrCat(field, ".local_path");
  RETURN_IF_ERROR(CheckPath(path_field, source.local_path));
  ASSIGN_OR_RETURN(const uint64_t size, fs_.FileSize(source.local_path));
  if (size > static_cast<uint64_t>(kMaxDataFileBytes)) {
    return RangeError(path_field, absl::StrCat(size, " bytes"),
                      absl::StrCat("[1, ", kMaxDataFileBytes, "]"));
  }
  return fs_.ReadFile(source.local_path,
                      static_cast<uint64_t>(kMaxDataFileBytes));
}

absl::StatusOr<JobRecord> TrainingService::Create(const CreateJobInput& input) {
  RETURN_IF_ERROR(why_not_);
  RETURN_IF_ERROR(CheckNames(input));
  TrainingOptions options = input.options;
  const bool chooses_budget = options.token_budget == 0;
  if (chooses_budget) options.token_budget = kMaxTokenBudget;
  RETURN_IF_ERROR(AsFields(options.Check()));
  const TrainingSubject& subject = runner_->subject();
  RETURN_IF_ERROR(AsFields(
      EstimateLora(subject.base.config(), options, subject.base.dtype())
          .status()));
  if (input.data.empty()) return FieldError("job.data", "is empty");
  ASSIGN_OR_RETURN(const std::string data, ReadSource("job.data", input.data));
  ASSIGN_OR_RETURN(const std::string eval, ReadSource("job.eval", input.eval));
  ASSIGN_OR_RETURN(const TrainingData parsed, [&] {
    absl::StatusOr<TrainingData> result =
        TrainingJob::Parse(subject, options, data, eval);
    if (!result.ok()) result = AsFields(result.status());
    return result;
  }());
  if (chooses_budget) options.token_budget = BudgetOf(parsed);
  JobRecord record;
  record.tenant = input.tenant;
  record.adapter = input.adapter;
  record.options = options;
  record.canary = input.canary;
  record.examples = parsed.data.size();
  absl::StatusOr<JobRecord> added = runner_->Add(record, data, eval);
  if (added.ok() || !absl::IsResourceExhausted(added.status())) return added;
  return WithDefaultReason(added.status(), "DISK_FULL");
}

absl::StatusOr<JobRecord> TrainingService::Get(const std::string& id) {
  RETURN_IF_ERROR(why_not_);
  return runner_->Get(id);
}

absl::StatusOr<std::vector<JobRecord>> TrainingService::List() {
  RETURN_IF_ERROR(why_not_);
  return runner_->List();
}

absl::StatusOr<JobRecord> TrainingService::Cancel(const std::string& id) {
  RETURN_IF_ERROR(why_not_);
  return runner_->Cancel(id);
}

JobRunner::Publisher NewJobPublisher(AdapterStore& store, GoldenGate& gate) {
  return [&store, &gate](const JobRecord& job,
                         const std::string& dir) -> absl::StatusOr<uint32_t> {
    AdapterStore::RegisterRequest request;
    request.tenant = job.tenant;
    request.name = job.adapter;
    request.path = dir;
    request.trusted_path = true;
    request.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
    request.actor = absl::StrCat("training ", job.id);
    request.gate = [&gate](const VersionRef& version,
                           absl::string_view golden) {
      return gate.Check(version, golden);
    };
    ASSIGN_OR_RETURN(const AdapterInfo info, store.Register(request));
    const uint32_t version = info.newest.key.version;
    if (job.canary.has_value()) {
      RETURN_IF_ERROR(
          Annotate(PutCanary(store, job, version),
                   absl::StrCat("version ", version, " of ", job.adapter,
                                " is registered, but as a candidate of ",
                                job.canary->alias)));
    }
    return version;
  };
}

}  // namespace lorikeet
