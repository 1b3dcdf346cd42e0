#include "server/training/job_record.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace lorikeet {
namespace {

constexpr JobState kStates[] = {JobState::kQueued,      JobState::kRunning,
                                JobState::kRegistering, JobState::kSucceeded,
                                JobState::kFailed,      JobState::kCancelled};
constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();
constexpr double kMaxDouble = std::numeric_limits<double>::max();

absl::StatusOr<JobState> ParseState(JsonReader& in) {
  ASSIGN_OR_RETURN(const std::string name, in.String("state", ""));
  for (const JobState state : kStates) {
    if (name == Name(state)) return state;
  }
  return in.Error("state", "is none of the known ones");
}

absl::StatusOr<std::optional<double>> OptionalDouble(JsonReader& in,
                                                     const char* key) {
  if (in.Get(key) == nullptr) return std::optional<double>();
  ASSIGN_OR_RETURN(const double value,
                   in.Double(key, 0, -kMaxDouble, kMaxDouble));
  return std::optional<double>(value);
}

}  // namespace

const char* Name(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kRegistering:
      return "registering";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
  }
  return "";
}

Json JobRecord::ToJson() const {
  Json json = Json::Object();
  json.Set("id", id);
  json.Set("tenant", tenant);
  json.Set("adapter", adapter);
  json.Set("options", options.ToJson());
  json.Set("has_eval", has_eval);
  if (canary.has_value()) {
    json.Set("canary_alias", canary->alias);
    json.Set("canary_percent", canary->percent);
  }
  json.Set("state", Name(state));
  if (!error.ok()) {
    json.Set("error_code", static_cast<int>(error.code()));
    json.Set("error", std::string(error.message()));
  }
  json.Set("version", version);
  json.Set("create_time_us", absl::ToUnixMicros(create_time));
  if (end_time.has_value()) {
    json.Set("end_time_us", absl::ToUnixMicros(*end_time));
  }
  json.Set("examples", examples);
  json.Set("num_steps", num_steps);
  json.Set("steps_done", steps_done);
  json.Set("loss", loss);
  if (eval_loss.has_value()) json.Set("eval_loss", *eval_loss);
  if (eval_exact_match.has_value()) {
    json.Set("eval_exact_match", *eval_exact_match);
  }
  return json;
}

absl::StatusOr<JobRecord> JobRecord::FromJson(const Json& json) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError("job record is no object");
  }
  JsonReader in(json, "job record");
  JobRecord r;
  ASSIGN_OR_RETURN(r.id, in.String("id", ""));
  ASSIGN_OR_RETURN(r.tenant, in.String("tenant", ""));
  ASSIGN_OR_RETURN(r.adapter, in.String("adapter", ""));
  RETURN_IF_ERROR(in.Require("options"));
  ASSIGN_OR_RETURN(r.options, TrainingOptions::FromJson(*in.Get("options")));
  ASSIGN_OR_RETURN(r.has_eval, in.Bool("has_eval", false));
  if (in.Get("canary_alias") != nullptr) {
    JobCanary canary;
    ASSIGN_OR_RETURN(canary.alias, in.String("canary_alias", ""));
    ASSIGN_OR_RETURN(const int64_t percent,
                     in.Int("canary_percent", 0, 0, 100));
    canary.percent = static_cast<uint32_t>(percent);
    r.canary = canary;
  }
  ASSIGN_OR_RETURN(r.state, ParseState(in));
  ASSIGN_OR_RETURN(const int64_t code, in.Int("error_code", 0, 0, 16));
  ASSIGN_OR_RETURN(const std::string message, in.String("error", ""));
  r.error = absl::Status(static_cast<absl::StatusCode>(code), message);
  ASSIGN_OR_RETURN(const int64_t version,
                   in.Int("version", 0, 0, std::numeric_limits<int>::max()));
  r.version = static_cast<uint32_t>(version);
  ASSIGN_OR_RETURN(const int64_t created,
                   in.Int("create_time_us", 0, 0, kMaxInt));
  r.create_time = absl::FromUnixMicros(created);
  ASSIGN_OR_RETURN(const int64_t ended, in.Int("end_time_us", 0, 0, kMaxInt));
  if (ended > 0) r.end_time = absl::FromUnixMicros(ended);
  ASSIGN_OR_RETURN(r.examples, in.Int("examples", 0, 0, kMaxInt));
  ASSIGN_OR_RETURN(r.num_steps, in.Int("num_steps", 0, 0, kMaxInt));
  ASSIGN_OR_RETURN(r.steps_done, in.Int("steps_done", 0, 0, kMaxInt));
  ASSIGN_OR_RETURN(r.loss, in.Double("loss", 0, -kMaxDouble, kMaxDouble));
  ASSIGN_OR_RETURN(r.eval_loss, OptionalDouble(in, "eval_loss"));
  ASSIGN_OR_RETURN(r.eval_exact_match, OptionalDouble(in, "eval_exact_match"));
  return r;
}

}  // namespace lorikeet
