#include "server/grpc/convert.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"
#include "server/grpc/convert_merges.h"

namespace lorikeet {
namespace {

template <typename Map>
Labels ToLabels(const Map& in) {
  Labels labels(in.begin(), in.end());
  std::sort(labels.begin(), labels.end());
  return labels;
}

AdapterOrigin ToOrigin(const v1::AdapterSource& in) {
  return {in.local_path(), in.expected_sha256()};
}

uint32_t ToUint32(int64_t v) {
  return static_cast<uint32_t>(std::clamp<int64_t>(v, 0, UINT32_MAX));
}

void ToProto(const TokenLogprobs& in, const EventContext& context,
             v1::TokenLogprob* out) {
  out->set_token_id(static_cast<uint32_t>(in.token));
  out->set_logprob(in.logprob);
  out->set_token_bytes(context.token_bytes(in.token));
  for (const auto& [token, logprob] : in.top) {
    v1::TokenLogprob* const top = out->add_top();
    top->set_token_id(static_cast<uint32_t>(token));
    top->set_logprob(logprob);
    top->set_token_bytes(context.token_bytes(token));
  }
}

SamplingInput ToSampling(const v1::SamplingParams& in) {
  SamplingInput out;
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_top_k()) out.top_k = in.top_k();
  if (in.has_min_p()) out.min_p = in.min_p();
  if (in.has_frequency_penalty()) {
    out.frequency_penalty = in.frequency_penalty();
  }
  if (in.has_presence_penalty()) out.presence_penalty = in.presence_penalty();
  if (in.has_repetition_penalty()) {
    out.repetition_penalty = in.repetition_penalty();
  }
  if (in.has_seed()) out.seed = in.seed();
  if (in.has_n()) out.n = in.n();
  out.logit_bias.assign(in.logit_bias().begin(), in.logit_bias().end());
  std::sort(out.logit_bias.begin(), out.logit_bias.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return out;
}

StopInput ToStop(const v1::StopConditions& in) {
  StopInput out;
  if (in.has_max_tokens()) out.max_tokens = in.max_tokens();
  if (in.has_min_tokens()) out.min_tokens = in.min_tokens();
  out.stop.assign(in.stop().begin(), in.stop().end());
  out.stop_token_ids.assign(in.stop_token_ids().begin(),
                            in.stop_token_ids().end());
  out.ignore_eos = in.ignore_eos();
  out.include_stop_str_in_output = in.include_stop_str_in_output();
  return out;
}

OutputInput ToOutput(const v1::OutputOptions& in) {
  OutputInput out;
  if (in.has_logprobs()) out.logprobs = in.logprobs();
  if (in.has_prompt_logprobs()) out.prompt_logprobs = in.prompt_logprobs();
  out.echo = in.echo();
  out.keep_special_tokens = in.keep_special_tokens();
  out.omit_text = in.omit_text();
  return out;
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kAbort:
      return v1::FINISH_REASON_ABORT;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::Adapter::State ToProto(AdapterState state) {
  switch (state) {
    case AdapterState::kLoading:
      return v1::Adapter::STATE_LOADING;
    case AdapterState::kActive:
      return v1::Adapter::STATE_ACTIVE;
    case AdapterState::kDraining:
      return v1::Adapter::STATE_DRAINING;
    case AdapterState::kFailed:
      return v1::Adapter::STATE_FAILED;
    case AdapterState::kIncompatible:
      return v1::Adapter::STATE_INCOMPATIBLE;
  }
  return v1::Adapter::STATE_UNSPECIFIED;
}

v1::Tier ToProto(Tier tier) {
  switch (tier) {
    case Tier::kDisk:
      return v1::TIER_DISK;
    case Tier::kHost:
      return v1::TIER_HOST;
    case Tier::kDevice:
      return v1::TIER_DEVICE;
  }
  return v1::TIER_UNSPECIFIED;
}

void ToProto(const AdapterVersionInfo& in, v1::LoraSpec* out) {
  out->set_rank(ToUint32(in.max_rank));
  out->set_alpha(static_cast<float>(in.alpha));
  out->set_use_rslora(in.use_rslora);
  for (const std::string& key : in.features.keys) {
    out->add_features(key);
    if (key == "use_dora") out->set_use_dora(true);
  }
  for (const std::string& target : in.target_modules) {
    out->add_target_modules(target);
  }
  // Names inside come from a file, which need not be UTF-8.
  for (const std::string& warning : in.warnings) {
    out->add_warnings(IsValidUtf8(warning) ? warning : Escape(warning));
  }
  for (const AdapterVersionInfo::Module& module : in.modules) {
    v1::ModuleSpec* const spec = out->add_modules();
    spec->set_module(module.name);
    spec->set_rank(ToUint32(module.rank));
    spec->set_scaling(static_cast<float>(module.scaling));
  }
}

// What UpdateAdapter changes.
struct UpdatePaths {
  bool display_name = false;
  bool labels = false;
  bool source = false;
  bool pinned = false;
  bool merge_policy = false;
};

absl::StatusOr<UpdatePaths> ToPaths(const v1::UpdateAdapterRequest& in) {
  const v1::Adapter& adapter = in.adapter();
  UpdatePaths paths;
  if (in.update_mask().paths().empty()) {
    paths.display_name = !adapter.display_name().empty();
    paths.labels = !adapter.labels().empty();
    paths.source = adapter.has_source();
    paths.pinned = adapter.pinned();
    paths.merge_policy = !adapter.merge_policy().empty();
    return paths;
  }
  for (const std::string& path : in.update_mask().paths()) {
    const bool all = path == "*";
    if (!all && path != "display_name" && path != "labels" &&
        path != "source" && path != "pinned" && path != "merge_policy") {
      return FieldError(
          "update_mask",
          absl::StrCat("path ", Quote(path),
                       " is none of display_name, labels, source, pinned, "
                       "merge_policy, *"));
    }
    paths.display_name |= all || path == "display_name";
    paths.labels |= all || path == "labels";
    paths.source |= path == "source" || (all && adapter.has_source());
    paths.pinned |= all || path == "pinned";
    paths.merge_policy |= all || path == "merge_policy";
  }
  return paths;
}

}  // namespace

absl::StatusOr<ResourceName> ParseName(absl::string_view field,
                                       absl::string_view collection,
                                       const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() == 4 && parts[0] == "tenants" && parts[2] == collection) {
    return ResourceName{parts[1], parts[3]};
  }
  return FieldError(field,
                    absl::StrCat(Quote(name), " is not tenants/{tenant}/",
                                 collection, "/{id}"),
                    "INVALID_NAME");
}

absl::StatusOr<std::string> ParseTenant(absl::string_view field,
                                        const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() == 2 && parts[0] == "tenants") return parts[1];
  return FieldError(field,
                    absl::StrCat(Quote(name), " is not tenants/{tenant}"),
                    "INVALID_NAME");
}

std::string AdapterName(const std::string& tenant, const std::string& id) {
  return absl::StrCat("tenants/", tenant, "/adapters/", id);
}

std::string AliasName(const std::string& tenant, const std::string& id) {
  return absl::StrCat("tenants/", tenant, "/aliases/", id);
}

absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& etag) {
  if (etag.empty()) return std::optional<uint64_t>();
  uint64_t value = 0;
  if (absl::SimpleAtoi(etag, &value)) return std::optional<uint64_t>(value);
  return WithField(
      WithReason(absl::AbortedError(absl::StrCat("etag ", Quote(etag),
                                                 " is not the current one")),
                 "ETAG_MISMATCH"),
      "etag");
}

absl::StatusOr<GenerateInput> ToGenerateInput(const v1::GenerateRequest& in) {
  GenerateInput out;
  out.task = in.task();
  for (const v1::AdapterPart& part : in.adapters()) {
    out.adapters.push_back(
        {part.name(),
         part.has_scale() ? std::optional<float>(part.scale()) : std::nullopt});
  }
  if (in.prompt_case() == v1::GenerateRequest::kText) out.text = in.text();
  if (in.prompt_case() == v1::GenerateRequest::kTokenIds) {
    out.token_ids.emplace(in.token_ids().ids().begin(),
                          in.token_ids().ids().end());
  }
  out.parse_special_tokens = in.parse_special_tokens();
  out.omit_special_tokens = in.omit_special_tokens();
  out.sampling = ToSampling(in.sampling());
  out.stop = ToStop(in.stop());
  out.output = ToOutput(in.output());
  if (in.output().omit_text() && in.output().omit_token_ids()) {
    return FieldError("output.omit_token_ids",
                      "and output.omit_text leave nothing to send");
  }
  ASSIGN_OR_RETURN(out.variant, ToVariant(in.variant()));
  out.priority = in.priority();
  out.routing_key = in.routing_key();
  out.labels = ToLabels(in.labels());
  return out;
}

void ToProto(const StartedEvent& in, const EventContext& context,
             v1::GenerationStarted* out) {
  out->set_request_id(context.request_id);
  if (context.adapters.size() == 1) {
    const AdapterKey& key = context.adapters[0].key;
    out->set_adapter(AdapterName(key.tenant, key.name));
    out->set_adapter_revision(key.digest.ToHex());
    out->set_adapter_version(key.version);
  }
  for (const GenerationAdapter& adapter : context.adapters) {
    if (!context.names_parts) break;
    v1::ResolvedAdapter* const part = out->add_adapters();
    part->set_adapter(AdapterName(adapter.key.tenant, adapter.key.name));
    part->set_revision(adapter.key.digest.ToHex());
    part->set_version(adapter.key.version);
    part->set_scale(adapter.scale);
  }
  out->set_prompt_tokens(ToUint32(in.prompt_tokens));
  out->set_cached_tokens(ToUint32(in.cached_tokens));
  out->set_variant(ToProto(in.variant));
  for (const TokenLogprobs& logprobs : in.prompt_logprobs) {
    ToProto(logprobs, context, out->add_prompt_logprobs());
  }
}

void ToProto(const DeltaEvent& in, const EventContext& context,
             v1::TokenDelta* out) {
  out->set_index(static_cast<uint32_t>(in.candidate));
  out->set_text(in.text);
  if (!context.omit_token_ids) {
    for (const Token token : in.tokens) {
      out->add_token_ids(static_cast<uint32_t>(token));
    }
  }
  for (const TokenLogprobs& logprobs : in.logprobs) {
    ToProto(logprobs, context, out->add_logprobs());
  }
}

void ToProto(const FinishedEvent& in, v1::GenerationFinished* out) {
  out->set_index(static_cast<uint32_t>(in.candidate));
  out->set_finish_reason(ToProto(in.reason));
  if (in.matched_token.has_value()) {
    out->set_matched_token_id(static_cast<uint32_t>(*in.matched_token));
  }
  if (in.matched_stop.has_value()) {
    out->set_matched_stop_str(*in.matched_stop);
  }
  v1::Usage* const usage = out->mutable_usage();
  usage->set_prompt_tokens(ToUint32(in.usage.prompt_tokens));
  usage->set_completion_tokens(ToUint32(in.usage.completion_tokens));
  usage->set_cached_tokens(ToUint32(in.usage.cached_tokens));
  v1::Timings* const timings = out->mutable_timings();
  ToProto(in.timings.queue, timings->mutable_queue());
  ToProto(in.timings.adapter_load, timings->mutable_adapter_load());
  ToProto(in.timings.prefill, timings->mutable_prefill());
  ToProto(in.timings.decode, timings->mutable_decode());
  ToProto(in.timings.time_to_first_token,
          timings->mutable_time_to_first_token());
}

void Append(v1::TokenDelta&& delta, v1::TokenDelta* out) {
  out->mutable_text()->append(delta.text());
  out->mutable_token_ids()->MergeFrom(delta.token_ids());
  for (v1::TokenLogprob& logprob : *delta.mutable_logprobs()) {
    *out->add_logprobs() = std::move(logprob);
  }
}

absl::StatusOr<CreateAdapterInput> ToCreateInput(
    const v1::CreateAdapterRequest& in, const std::string& actor) {
  CreateAdapterInput out;
  out.actor = actor;
  ASSIGN_OR_RETURN(out.tenant, ParseTenant("parent", in.parent()));
  out.name = in.adapter_id();
  out.display_name = in.adapter().display_name();
  out.base_model = in.adapter().base_model();
  out.origin = ToOrigin(in.adapter().source());
  out.labels = ToLabels(in.adapter().labels());
  out.pinned = in.adapter().pinned();
  out.validate_only = in.validate_only();
  return out;
}

absl::StatusOr<UpdateAdapterInput> ToUpdateInput(
    const v1::UpdateAdapterRequest& in, const std::string& actor) {
  UpdateAdapterInput out;
  out.actor = actor;
  const v1::Adapter& adapter = in.adapter();
  ASSIGN_OR_RETURN(ResourceName name,
                   ParseName("adapter.name", "adapters", adapter.name()));
  ASSIGN_OR_RETURN(const UpdatePaths paths, ToPaths(in));
  ASSIGN_OR_RETURN(out.etag, ParseEtag(adapter.etag()));
  out.tenant = std::move(name.tenant);
  out.name = std::move(name.id);
  out.base_model = adapter.base_model();
  if (paths.display_name) out.display_name = adapter.display_name();
  if (paths.labels) out.labels = ToLabels(adapter.labels());
  if (paths.source) out.origin = ToOrigin(adapter.source());
  if (paths.pinned) out.pinned = adapter.pinned();
  if (paths.merge_policy) out.merge_policy = adapter.merge_policy();
  out.allow_missing = in.allow_missing();
  out.validate_only = in.validate_only();
  return out;
}

InFlightPolicy ToPolicy(v1::InFlightPolicy in) {
  switch (in) {
    case v1::IN_FLIGHT_POLICY_ABORT:
      return InFlightPolicy::kAbort;
    case v1::IN_FLIGHT_POLICY_FAIL_IF_BUSY:
      return InFlightPolicy::kFailIfBusy;
    default:
      return InFlightPolicy::kDrain;
  }
}

absl::StatusOr<Tier> ToTier(absl::string_view field, v1::Tier in,
                            Tier fallback) {
  switch (in) {
    case v1::TIER_UNSPECIFIED:
      return fallback;
    case v1::TIER_DISK:
      return Tier::kDisk;
    case v1::TIER_HOST:
      return Tier::kHost;
    case v1::TIER_DEVICE:
      return Tier::kDevice;
    default:
      return RangeError(field, absl::StrCat(static_cast<int>(in)), "[0, 3]");
  }
}

void ToProto(const AdapterInfo& in, const ModelInfo& model,
             const absl::Status& error, v1::Adapter* out) {
  out->set_name(AdapterName(in.tenant, in.name));
  out->set_uid(in.uid);
  out->set_display_name(in.display_name);
  out->set_base_model(model.id);
  if (!in.source_path.empty()) {
    out->mutable_source()->set_local_path(
        IsValidUtf8(in.source_path) ? in.source_path : Escape(in.source_path));
  }
  out->set_revision(in.newest.key.digest.ToHex());
  out->set_version(in.newest.key.version);
  ToProto(in.newest, out->mutable_lora());
  out->set_state(ToProto(in.state));
  out->set_tier(ToProto(in.tier));
  out->set_pinned(in.pinned);
  if (in.merge_policy.has_value()) {
    out->set_merge_policy(Name(*in.merge_policy));
  }
  out->set_size_bytes(static_cast<uint64_t>(in.newest.size_bytes));
  out->set_active_requests(ToUint32(in.active_requests));
  if (!error.ok()) {
    out->mutable_error()->set_code(static_cast<int32_t>(error.code()));
    out->mutable_error()->set_reason(ReasonOf(error));
    out->mutable_error()->set_message(Escape(error.message(), 1000));
  }
  for (const auto& [key, value] : in.labels) {
    (*out->mutable_labels())[key] = value;
  }
  out->set_etag(absl::StrCat(in.etag));
  ToProto(in.create_time, out->mutable_create_time());
  ToProto(in.update_time, out->mutable_update_time());
  if (in.last_used.has_value()) {
    ToProto(*in.last_used, out->mutable_last_used_time());
  }
}

void ToProto(const AdapterVersionInfo& in, v1::Version* out) {
  out->set_number(in.key.version);
  out->set_digest(in.key.digest.ToHex());
  out->set_base_fingerprint(in.base_fingerprint.ToHex());
  ToProto(in, out->mutable_lora());
  ToProto(in.create_time, out->mutable_create_time());
}

void ToProto(const AdminService& in, v1::GetServerInfoResponse* out) {
  const ModelInfo& model = in.model();
  out->set_version(model.program_version);
  out->set_base_model(model.id);
  out->set_backend(model.backend);
  out->set_max_model_len(ToUint32(model.max_model_len));
  out->set_max_loras(ToUint32(model.max_loras));
  out->set_max_lora_rank(ToUint32(model.max_lora_rank));
  ToProto(in.Uptime(), out->mutable_uptime());
  out->set_dtype(model.dtype);
  out->set_device(model.device);
  out->set_base_fingerprint(model.base_fingerprint);
}

void ToProto(const ServerLoad& in, v1::Load* out) {
  const SchedulerLoad& scheduler = in.engine.scheduler;
  out->set_running_requests(ToUint32(scheduler.running));
  out->set_waiting_requests(ToUint32(scheduler.waiting));
  if (scheduler.blocks_total > 0) {
    out->set_kv_cache_usage(static_cast<double>(scheduler.blocks_used) /
                            static_cast<double>(scheduler.blocks_total));
  }
  out->set_device_adapters(ToUint32(in.adapters.device_adapters));
  out->set_device_adapter_slots(ToUint32(in.adapters.device_slots));
  out->set_host_adapters(ToUint32(in.adapters.host_adapters));
  out->set_decode_tokens_per_second(in.engine.decode_tokens_per_second);
  out->set_prefix_cache_hit_rate(in.engine.prefix_cache_hit_rate);
  out->set_generated_tokens(static_cast<uint64_t>(in.engine.generated_tokens));
  out->set_host_adapter_bytes(static_cast<uint64_t>(in.adapters.host_bytes));
  out->set_device_adapter_bytes(
      static_cast<uint64_t>(in.adapters.device_bytes));
  out->set_adapter_loads(static_cast<uint64_t>(in.adapters.loads));
  out->set_adapter_evictions(static_cast<uint64_t>(in.adapters.evictions));
  out->set_preemptions(static_cast<uint64_t>(scheduler.preemptions));
}

void ToProto(absl::Time in, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(in);
  out->set_seconds(nanos / 1000000000);
  out->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

void ToProto(absl::Duration in, google::protobuf::Duration* out) {
  const int64_t nanos = absl::ToInt64Nanoseconds(in);
  out->set_seconds(nanos / 1000000000);
  out->set_nanos(static_cast<int32_t>(nanos % 1000000000));
}

absl::StatusOr<absl::Duration> ToDuration(absl::string_view field,
                                          const google::protobuf::Duration& in,
                                          absl::Duration min,
                                          absl::Duration max) {
  const absl::Duration value =
      absl::Seconds(in.seconds()) + absl::Nanoseconds(in.nanos());
  if (value < min || value > max) {
    return RangeError(field, absl::FormatDuration(value),
                      absl::StrCat("[", absl::FormatDuration(min), ", ",
                                   absl::FormatDuration(max), "]"));
  }
  return value;
}

}  // namespace lorikeet
