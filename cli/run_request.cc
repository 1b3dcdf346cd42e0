#include "cli/run_request.h"

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
constexpr double kMaxFloat = std::numeric_limits<float>::max();

template <typename T>
absl::Status ReadInt(JsonReader& reader, absl::string_view key, int64_t min,
                     std::optional<T>* out) {
  if (reader.Get(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t value, reader.Int(key, 0, min, kMaxInt));
  *out = static_cast<T>(value);
  return absl::OkStatus();
}

absl::Status ReadFloat(JsonReader& reader, absl::string_view key,
                       std::optional<float>* out) {
  if (reader.Get(key) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const double value,
                   reader.Double(key, 0, -kMaxFloat, kMaxFloat));
  *out = static_cast<float>(value);
  return absl::OkStatus();
}

absl::Status ReadBool(JsonReader& reader, absl::string_view key, bool* out) {
  ASSIGN_OR_RETURN(*out, reader.Bool(key, *out));
  return absl::OkStatus();
}

absl::Status ReadTokens(JsonReader& reader, absl::string_view key,
                        std::vector<uint32_t>* out) {
  const Json* value = reader.Get(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_array()) {
    return reader.Error(key, absl::StrCat("is ", value->TypeName(),
                                          ", expected a list of token ids"));
  }
  for (const Json& item : value->items()) {
    if (!item.is_int() || item.AsInt() < 0 || item.AsInt() > kMaxInt) {
      return reader.Error(
          key, absl::StrCat("has the entry ", Escape(item.Dump(), 40),
                            ", expected a token id"));
    }
    out->push_back(static_cast<uint32_t>(item.AsInt()));
  }
  return absl::OkStatus();
}

absl::Status ReadStop(JsonReader& reader, std::vector<std::string>* out) {
  const Json* value = reader.Get("stop");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    out->push_back(value->AsString());
    return absl::OkStatus();
  }
  if (!value->is_array()) {
    return reader.Error("stop", "is neither a string nor a list of strings");
  }
  for (const Json& item : value->items()) {
    if (!item.is_string()) {
      return reader.Error(
          "stop", absl::StrCat("has the entry ", Escape(item.Dump(), 40),
                               ", expected a string"));
    }
    out->push_back(item.AsString());
  }
  return absl::OkStatus();
}

absl::Status ReadLogitBias(JsonReader& reader,
                           std::vector<std::pair<uint32_t, float>>* out) {
  const Json* value = reader.Get("logit_bias");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object()) {
    return reader.Error("logit_bias", "is no object of token id to number");
  }
  for (const Json::Member& m : value->members()) {
    uint32_t token = 0;
    if (!absl::SimpleAtoi(m.first, &token) || !m.second.is_number()) {
      return reader.Error("logit_bias",
                          absl::StrCat("has the entry ", Quote(m.first, 40),
                                       ", expected token id to number"));
    }
    out->emplace_back(token, static_cast<float>(m.second.AsDouble()));
  }
  return absl::OkStatus();
}

// True means 0 alternatives, a number that many.
absl::Status ReadLogprobs(JsonReader& reader, absl::string_view key,
                          std::optional<uint32_t>* out) {
  const Json* value = reader.Get(key);
  if (value != nullptr && value->is_bool()) {
    if (value->AsBool()) *out = 0;
    return absl::OkStatus();
  }
  return ReadInt(reader, key, 0, out);
}

absl::Status ReadSeed(JsonReader& reader, std::optional<uint64_t>* out) {
  if (reader.Get("seed") == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      const int64_t seed,
      reader.Int("seed", 0, 0, std::numeric_limits<int64_t>::max()));
  *out = static_cast<uint64_t>(seed);
  return absl::OkStatus();
}

absl::Status ReadPrompt(JsonReader& reader, GenerateInput* in) {
  const bool has_text = reader.Get("prompt") != nullptr;
  const bool has_ids = reader.Get("token_ids") != nullptr;
  if (has_text == has_ids) {
    return absl::InvalidArgumentError(
        "exactly one of \"prompt\" and \"token_ids\" is needed");
  }
  if (has_text) {
    ASSIGN_OR_RETURN(in->text, reader.String("prompt", ""));
  } else {
    in->token_ids.emplace();
    RETURN_IF_ERROR(ReadTokens(reader, "token_ids", &*in->token_ids));
  }
  RETURN_IF_ERROR(
      ReadBool(reader, "parse_special_tokens", &in->parse_special_tokens));
  return ReadBool(reader, "omit_special_tokens", &in->omit_special_tokens);
}

absl::Status ReadSampling(JsonReader& reader, SamplingInput* s) {
  RETURN_IF_ERROR(ReadInt(reader, "n", 0, &s->n));
  RETURN_IF_ERROR(ReadInt(reader, "top_k", -1, &s->top_k));
  RETURN_IF_ERROR(ReadFloat(reader, "temperature", &s->temperature));
  RETURN_IF_ERROR(ReadFloat(reader, "top_p", &s->top_p));
  RETURN_IF_ERROR(ReadFloat(reader, "min_p", &s->min_p));
  RETURN_IF_ERROR(
      ReadFloat(reader, "repetition_penalty", &s->repetition_penalty));
  RETURN_IF_ERROR(ReadFloat(reader, "presence_penalty", &s->presence_penalty));
  RETURN_IF_ERROR(
      ReadFloat(reader, "frequency_penalty", &s->frequency_penalty));
  RETURN_IF_ERROR(ReadSeed(reader, &s->seed));
  return ReadLogitBias(reader, &s->logit_bias);
}

absl::Status ReadStopping(JsonReader& reader, StopInput* s) {
  RETURN_IF_ERROR(ReadInt(reader, "max_tokens", 0, &s->max_tokens));
  RETURN_IF_ERROR(ReadInt(reader, "min_tokens", 0, &s->min_tokens));
  RETURN_IF_ERROR(ReadStop(reader, &s->stop));
  RETURN_IF_ERROR(ReadTokens(reader, "stop_token_ids", &s->stop_token_ids));
  RETURN_IF_ERROR(ReadBool(reader, "ignore_eos", &s->ignore_eos));
  return ReadBool(reader, "include_stop_str_in_output",
                  &s->include_stop_str_in_output);
}

absl::Status ReadOutput(JsonReader& reader, OutputInput* o) {
  RETURN_IF_ERROR(ReadLogprobs(reader, "logprobs", &o->logprobs));
  RETURN_IF_ERROR(ReadLogprobs(reader, "prompt_logprobs", &o->prompt_logprobs));
  RETURN_IF_ERROR(ReadBool(reader, "echo", &o->echo));
  RETURN_IF_ERROR(
      ReadBool(reader, "keep_special_tokens", &o->keep_special_tokens));
  return ReadBool(reader, "return_logits", &o->return_logits);
}

absl::Status CheckUnknown(const JsonReader& reader) {
  const std::vector<std::string> unknown = reader.UnknownKeys();
  if (unknown.empty()) return absl::OkStatus();
  return reader.Error(unknown.front(), "is not known");
}

// [{"name": "a", "scale": 0.5}, "b", ...]; a name alone has scale 1.
absl::Status ReadAdapters(JsonReader& reader, GenerateInput* in) {
  const Json* value = reader.Get("adapters");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_array() || value->items().empty()) {
    return reader.Error("adapters",
                        "is no list of objects with \"name\" and \"scale\"");
  }
  if (!in->task.empty()) {
    return reader.Error("adapters", "cannot be given beside \"adapter\"");
  }
  for (const Json& item : value->items()) {
    AdapterPart part;
    if (item.is_string()) {
      part.name = item.AsString();
    } else if (item.is_object()) {
      JsonReader fields(item, "adapters");
      ASSIGN_OR_RETURN(part.name, fields.String("name", ""));
      RETURN_IF_ERROR(ReadFloat(fields, "scale", &part.scale));
      RETURN_IF_ERROR(CheckUnknown(fields));
    } else {
      return reader.Error(
          "adapters", absl::StrCat("has the entry ", Escape(item.Dump(), 40),
                                   ", expected an object"));
    }
    in->adapters.push_back(std::move(part));
  }
  return absl::OkStatus();
}

absl::StatusOr<RunRequest> ParseRequest(const Json& object) {
  JsonReader reader(object, "request");
  RunRequest r;
  if (const Json* id = reader.Get("id")) r.id = *id;
  ASSIGN_OR_RETURN(r.input.task, reader.String("adapter", ""));
  RETURN_IF_ERROR(ReadAdapters(reader, &r.input));
  RETURN_IF_ERROR(ReadPrompt(reader, &r.input));
  RETURN_IF_ERROR(ReadSampling(reader, &r.input.sampling));
  RETURN_IF_ERROR(ReadStopping(reader, &r.input.stop));
  RETURN_IF_ERROR(ReadOutput(reader, &r.input.output));
  RETURN_IF_ERROR(CheckUnknown(reader));
  return r;
}

absl::StatusOr<RunOp> ParseOp(const Json& object) {
  JsonReader reader(object, "operation");
  RunOp op;
  ASSIGN_OR_RETURN(const std::string kind, reader.String("op", ""));
  if (kind == "load") {
    op.kind = RunOp::Kind::kLoad;
  } else if (kind == "unload") {
    op.kind = RunOp::Kind::kUnload;
  } else if (kind == "update") {
    op.kind = RunOp::Kind::kUpdate;
  } else if (kind == "barrier") {
    op.kind = RunOp::Kind::kBarrier;
  } else {
    return reader.Error("op", absl::StrCat("is ", Quote(kind, 40),
                                           ", expected load, unload, update "
                                           "or barrier"));
  }
  // "name" is accepted for "adapter".
  ASSIGN_OR_RETURN(const std::string name, reader.String("name", ""));
  ASSIGN_OR_RETURN(op.adapter, reader.String("adapter", name));
  ASSIGN_OR_RETURN(op.path, reader.String("path", ""));
  RETURN_IF_ERROR(CheckUnknown(reader));
  if (op.kind != RunOp::Kind::kBarrier && op.adapter.empty()) {
    return reader.Error("adapter", "is missing");
  }
  if (op.kind == RunOp::Kind::kUpdate && op.path.empty()) {
    return reader.Error("path", "is missing");
  }
  return op;
}

}  // namespace

absl::StatusOr<RunLine> ParseRunLine(absl::string_view line) {
  ASSIGN_OR_RETURN(const Json object, Json::Parse(line));
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the line is ", object.TypeName(), ", expected an object"));
  }
  if (object.Find("op") != nullptr) {
    ASSIGN_OR_RETURN(RunOp op, ParseOp(object));
    return RunLine(std::move(op));
  }
  ASSIGN_OR_RETURN(RunRequest request, ParseRequest(object));
  return RunLine(std::move(request));
}

}  // namespace lorikeet
