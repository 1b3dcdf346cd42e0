#include "server/frontend/generate_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

absl::Status NoTokenizer() {
  return WithReason(
      absl::FailedPreconditionError(
          "the model has no tokenizer.json: use token ids instead of text"),
      "TOKENIZER_MISSING");
}

}  // namespace

GenerateService::GenerateService(const ModelInfo& model,
                                 const Tokenizer* tokenizer,
                                 AdapterStore& adapters, Engine& engine,
                                 AliasMonitor* monitor)
    : model_(model),
      tokenizer_(tokenizer),
      adapters_(adapters),
      engine_(engine),
      monitor_(monitor) {}

absl::StatusOr<Route> GenerateService::ResolveTask(const std::string& task,
                                                   const std::string& key,
                                                   const std::string& field) {
  if (task.empty()) {
    return FieldError(
        field,
        absl::StrCat("is empty: name an adapter, an alias or the base model ",
                     Quote(model_.id)),
        "TASK_MISSING");
  }
  if (task == model_.id) return Route();
  const absl::StatusOr<AdapterRef> ref = AdapterRef::Parse(task);
  if (!ref.ok()) {
    return WithField(WithReason(Annotate(ref.status(), field), "INVALID_TASK"),
                     field);
  }
  absl::StatusOr<Route> route = adapters_.FindRoute(*ref, key);
  if (route.ok()) return route;
  const absl::Status status = WithDefaultReason(
      Annotate(route.status(), absl::StrCat(field, " ", Quote(task))),
      absl::IsNotFound(route.status()) ? "ADAPTER_NOT_FOUND"
                                       : "ADAPTER_INCOMPATIBLE");
  return WithResource(WithField(status, field), "adapter", task);
}

// What is larger than the device would be loaded and evicted for ever.
absl::Status GenerateService::CheckFitsDevice(
    std::span<const RequestAdapter> adapters) {
  if (adapters.size() < 2) return absl::OkStatus();
  int64_t bytes = 0;
  for (const RequestAdapter& a : adapters) bytes += a.version->size_bytes;
  const int64_t limit = adapters_.GetResidency().device_bytes_max;
  if (bytes <= limit) return absl::OkStatus();
  return WithField(WithReason(absl::ResourceExhaustedError(absl::StrCat(
                                  "adapters have ", bytes,
                                  " bytes in total, the device holds ", limit)),
                              "DEVICE_FULL"),
                   "adapters");
}

// Parts are watched and shadowed by nobody: an alias answers for one version.
absl::StatusOr<std::vector<RequestAdapter>> GenerateService::ResolveParts(
    const GenerateInput& input, std::optional<MergePolicy>* merge_policy) {
  if (!input.task.empty()) {
    return FieldError("task", "cannot be given beside adapters");
  }
  RETURN_IF_ERROR(CheckParts(input.adapters));
  std::vector<RequestAdapter> adapters;
  for (size_t i = 0; i < input.adapters.size(); ++i) {
    const AdapterPart& part = input.adapters[i];
    const std::string field = absl::StrCat("adapters[", i, "].name");
    ASSIGN_OR_RETURN(Route route,
                     ResolveTask(part.name, input.routing_key, field));
    if (route.version == nullptr) {
      return FieldError(field, "is the base model, which is always there");
    }
    *merge_policy = route.merge_policy;
    adapters.push_back({std::move(route.version), part.scale.value_or(1)});
  }
  RETURN_IF_ERROR(CheckComposition(input.adapters, adapters, model_));
  RETURN_IF_ERROR(CheckFitsDevice(adapters));
  return adapters;
}

absl::StatusOr<std::vector<Token>> GenerateService::Encode(
    const std::string& field, const std::string& text, bool omit_special_tokens,
    bool parse_special_tokens) const {
  if (tokenizer_ == nullptr) return NoTokenizer();
  // A text that cannot fit is refused before the work of tokenizing it.
  const int64_t max_bytes = model_.max_model_len * model_.max_token_bytes;
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return FieldError(
        field,
        absl::StrCat("has ", text.size(), " bytes: more than max_model_len ",
                     model_.max_model_len, " tokens hold (", max_bytes, ")"),
        "CONTEXT_LENGTH_EXCEEDED");
  }
  if (!IsValidUtf8(text)) {
    return FieldError(field, "is not valid UTF-8", "INVALID_UTF8");
  }
  EncodeOptions options;
  options.add_special_tokens = !omit_special_tokens;
  options.special_as_text = !parse_special_tokens;
  absl::StatusOr<std::vector<Token>> ids = tokenizer_->Encode(text, options);
  if (!ids.ok()) {
    return WithField(
        Annotate(WithDefaultReason(ids.status(), "INVALID_FIELD"), field),
        field);
  }
  return ids;
}

absl::StatusOr<std::vector<Token>> GenerateService::EncodePrompt(
    const GenerateInput& input) const {
  if (input.token_ids.has_value()) {
    return CheckTokens("token_ids.ids", *input.token_ids, model_);
  }
  if (!input.text.has_value() || input.text->empty()) {
    return FieldError(input.text.has_value() ? "text" : "prompt", "is empty",
                      "PROMPT_EMPTY");
  }
  return Encode("text", *input.text, input.omit_special_tokens,
                input.parse_special_tokens);
}

absl::StatusOr<Generation> GenerateService::Generate(
    const GenerateInput& input) {
  Generation generation;
  RETURN_IF_ERROR(CheckRoutingKey(input.routing_key));
  Route route;
  std::vector<RequestAdapter> adapters;
  if (input.adapters.empty()) {
    ASSIGN_OR_RETURN(route, ResolveTask(input.task, input.routing_key));
    if (route.version != nullptr) adapters.push_back({route.version, 1});
  } else {
    ASSIGN_OR_RETURN(adapters, ResolveParts(input, &route.merge_policy));
  }
  ASSIGN_OR_RETURN(std::vector<Token> prompt, EncodePrompt(input));
  ASSIGN_OR_RETURN(EngineRequest request,
                   BuildEngineRequest(input, std::move(prompt), model_));
  if (request.output.text && tokenizer_ == nullptr) {
    request.output.text = false;
  }
  if (!request.stop.stop.empty() && tokenizer_ == nullptr) {
    return WithField(NoTokenizer(), "stop.stop");
  }
  // Only the engine holds the versions: a reader that stalls behind the last
  // event must not keep them alive.
  for (const RequestAdapter& adapter : adapters) {
    generation.adapters.push_back({adapter.version->key, adapter.scale});
    request.tenant = adapter.version->key.tenant;
  }
  generation.candidates = request.sampling.n;
  const bool is_watched = monitor_ != nullptr && route.is_watched;
  EngineRequest copy;
  if (is_watched && route.shadow != nullptr) copy = request;
  request.adapters = std::move(adapters);
  request.merge_policy = route.merge_policy;
  ASSIGN_OR_RETURN(generation.stream, engine_.Submit(std::move(request)));
  if (is_watched) {
    generation.stream =
        monitor_->Watch(route, std::move(generation.stream), std::move(copy));
  }
  return generation;
}

absl::StatusOr<std::vector<Token>> GenerateService::Tokenize(
    const TokenizeInput& input) {
  RETURN_IF_ERROR(ResolveTask(input.task, "").status());
  return Encode("text", input.text, input.omit_special_tokens,
                input.parse_special_tokens);
}

absl::StatusOr<std::string> GenerateService::Detokenize(
    const std::string& task, const std::vector<uint32_t>& ids,
    bool skip_special_tokens) {
  RETURN_IF_ERROR(ResolveTask(task, "").status());
  if (tokenizer_ == nullptr) return NoTokenizer();
  ASSIGN_OR_RETURN(const std::vector<Token> tokens,
                   CheckTokens("token_ids", ids, model_));
  return tokenizer_->Decode(tokens, skip_special_tokens);
}

std::string GenerateService::TokenBytes(Token token) const {
  return tokenizer_ == nullptr ? std::string() : tokenizer_->TokenBytes(token);
}

std::vector<ModelEntry> GenerateService::ListModels() {
  const std::string tenant(kDefaultTenant);
  std::vector<ModelEntry> entries;
  for (const AdapterInfo& adapter : adapters_.ListAll(tenant)) {
    if (adapter.state != AdapterState::kActive) continue;
    entries.push_back({adapter.name, adapter.source_path, model_.id,
                       adapter.newest.create_time});
  }
  for (const AliasInfo& alias : adapters_.ListAliases(tenant)) {
    entries.push_back(
        {alias.name, alias.target.ToString(), model_.id, absl::UnixEpoch()});
  }
  std::sort(
      entries.begin(), entries.end(),
      [](const ModelEntry& a, const ModelEntry& b) { return a.id < b.id; });
  entries.insert(entries.begin(),
                 {model_.id, model_.dir, "", model_.start_time});
  return entries;
}

}  // namespace lorikeet
