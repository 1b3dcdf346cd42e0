// What a missing key means differs between families; each rule below is that
// of the family's configuration class in transformers.

#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "model/end_tokens.h"

namespace lorikeet {
namespace {

// Limits far above every model we know, low enough that no product of them
// overflows 64 bits.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 17;
constexpr int64_t kMaxIntermediate = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 10'000;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxPosition = int64_t{1} << 30;  // positions are int32
constexpr double kMaxRopeFactor = 1e6;
// YaRN divides by the logarithm of theta.
constexpr double kMinRopeTheta = 1.01;
constexpr double kMaxRopeTheta = 1e12;

struct Family {
  absl::string_view architecture;
  absl::string_view model_type;
  int64_t default_max_position;
};

constexpr std::array<Family, 4> kFamilies = {{
    {"LlamaForCausalLM", "llama", 2048},
    {"MistralForCausalLM", "mistral", 4096 * 32},
    {"Qwen2ForCausalLM", "qwen2", 32768},
    {"Qwen3ForCausalLM", "qwen3", 32768},
}};

absl::Status Unsupported(absl::string_view key, absl::string_view rest) {
  return absl::UnimplementedError(
      absl::StrCat("config.json field ", Quote(key), " ", rest));
}

// Finds the family by the architecture, by the model type if there is none.
absl::StatusOr<Family> FindFamily(const Json* architectures,
                                  const std::string& model_type) {
  std::string architecture;
  if (architectures != nullptr) {
    if (!architectures->is_array() || architectures->items().size() != 1 ||
        !architectures->items()[0].is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "config.json field \"architectures\" is ",
          Escape(architectures->Dump(), 80), ", expected a list of one name"));
    }
    architecture = architectures->items()[0].AsString();
  }
  if (architecture.empty() && model_type.empty()) {
    return absl::InvalidArgumentError(
        "config.json has neither \"architectures\" nor \"model_type\"");
  }
  for (const Family& family : kFamilies) {
    if ((architecture.empty() || architecture == family.architecture) &&
        (model_type.empty() || model_type == family.model_type)) {
      return family;
    }
  }
  std::string supported;
  for (const Family& family : kFamilies) {
    absl::StrAppend(&supported, supported.empty() ? "" : ", ",
                    family.architecture);
  }
  return absl::UnimplementedError(absl::StrCat(
      "config.json: architecture ", Quote(architecture), " with model_type ",
      Quote(model_type), " is not supported; supported: ", supported));
}

// Reads one config.json; each function one group of fields.
class Parser {
 public:
  explicit Parser(const Json& root)
      : root_(root), reader_(root, "config.json") {}

  absl::StatusOr<ModelConfig> Parse() {
    ASSIGN_OR_RETURN(const std::string model_type,
                     reader_.String("model_type", ""));
    ASSIGN_OR_RETURN(family_,
                     FindFamily(reader_.Get("architectures"), model_type));
    config_.architecture = std::string(family_.architecture);
    config_.model_type = std::string(family_.model_type);
    RETURN_IF_ERROR(RefuseUnsupported());
    RETURN_IF_ERROR(ParseSizes());
    RETURN_IF_ERROR(ParseHeads());
    RETURN_IF_ERROR(ParseFlags());
    RETURN_IF_ERROR(ParseRope());
    RETURN_IF_ERROR(ParseWindows());
    ASSIGN_OR_RETURN(std::optional<std::vector<Token>> end_tokens,
                     ReadEndTokens(reader_));
    if (end_tokens.has_value()) config_.eos_tokens = *std::move(end_tokens);
    return std::move(config_);
  }

 private:
  bool IsFamily(absl::string_view model_type) const {
    return family_.model_type == model_type;
  }
  // True if the text has the key with the value null, which is not always the
  // same as no key.
  bool IsNull(absl::string_view key) const {
    const Json* value = root_.Find(key);
    return value != nullptr && value->is_null();
  }

  absl::Status RefuseUnsupported() {
    const Json* quantization = reader_.Get("quantization_config");
    if (quantization != nullptr) {
      return Unsupported("quantization_config",
                         absl::StrCat("is ", Escape(quantization->Dump(), 80),
                                      ": quantized weights are not supported"));
    }
    ASSIGN_OR_RETURN(const std::string act,
                     reader_.String("hidden_act", "silu"));
    if (act != "silu" && act != "swish") {
      return Unsupported("hidden_act", absl::StrCat("is ", Quote(act),
                                                    ", supported: \"silu\""));
    }
    ASSIGN_OR_RETURN(const bool interleaved,
                     reader_.Bool("rope_interleaved", false));
    if (interleaved) {
      return Unsupported("rope_interleaved", "is true, supported: false");
    }
    ASSIGN_OR_RETURN(const double rotary,
                     reader_.Double("partial_rotary_factor", 1, 0, 1));
    if (rotary != 1) {
      return Unsupported("partial_rotary_factor",
                         absl::StrCat("is ", rotary, ", supported: 1"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> RequiredInt(absl::string_view key, int64_t min,
                                      int64_t max) {
    RETURN_IF_ERROR(reader_.Require(key));
    return reader_.Int(key, 0, min, max);
  }

  absl::Status ParseSizes() {
    ASSIGN_OR_RETURN(config_.vocab_size,
                     RequiredInt("vocab_size", 1, kMaxVocab));
    ASSIGN_OR_RETURN(config_.hidden_size,
                     RequiredInt("hidden_size", 1, kMaxHidden));
    ASSIGN_OR_RETURN(config_.intermediate_size,
                     RequiredInt("intermediate_size", 1, kMaxIntermediate));
    ASSIGN_OR_RETURN(config_.num_layers,
                     RequiredInt("num_hidden_layers", 1, kMaxLayers));
    ASSIGN_OR_RETURN(
        config_.max_position,
        reader_.Int("max_position_embeddings", family_.default_max_position, 1,
                    kMaxPosition));
    ASSIGN_OR_RETURN(const double eps,
                     reader_.Double("rms_norm_eps", 1e-6, 0, 1));
    config_.rms_norm_eps = static_cast<float>(eps);
    return absl::OkStatus();
  }

  absl::Status ParseHeads() {
    ASSIGN_OR_RETURN(config_.num_heads,
                     RequiredInt("num_attention_heads", 1, kMaxHeads));
    int64_t default_kv_heads = config_.num_heads;
    const bool is_missing = root_.Find("num_key_value_heads") == nullptr;
    if (is_missing && IsFamily("mistral")) default_kv_heads = 8;
    if (is_missing && (IsFamily("qwen2") || IsFamily("qwen3"))) {
      default_kv_heads = 32;
    }
    ASSIGN_OR_RETURN(
        config_.num_kv_heads,
        reader_.Int("num_key_value_heads", default_kv_heads, 1, kMaxHeads));
    if (config_.num_heads % config_.num_kv_heads != 0) {
      return reader_.Error(
          "num_key_value_heads",
          absl::StrCat("is ", config_.num_kv_heads,
                       ", which does not divide num_attention_heads ",
                       config_.num_heads));
    }
    int64_t default_head_dim = 0;
    if (IsFamily("qwen3") && root_.Find("head_dim") == nullptr) {
      default_head_dim = 128;
    } else if (reader_.Get("head_dim") == nullptr) {
      if (config_.hidden_size % config_.num_heads != 0) {
        return reader_.Error(
            "hidden_size",
            absl::StrCat("is ", config_.hidden_size,
                         ", no multiple of num_attention_heads ",
                         config_.num_heads, ", and there is no head_dim"));
      }
      default_head_dim = config_.hidden_size / config_.num_heads;
    }
    ASSIGN_OR_RETURN(config_.head_dim,
                     reader_.Int("head_dim", default_head_dim, 1, kMaxHeadDim));
    if (config_.head_dim % 2 != 0 || config_.head_dim > kMaxHeadDim) {
      return reader_.Error(
          "head_dim",
          absl::StrCat("is ", config_.head_dim,
                       ", expected an even number up to ", kMaxHeadDim));
    }
    return absl::OkStatus();
  }

  absl::Status ParseFlags() {
    ASSIGN_OR_RETURN(config_.tie_word_embeddings,
                     reader_.Bool("tie_word_embeddings", false));
    if (IsFamily("llama") || IsFamily("qwen3")) {
      ASSIGN_OR_RETURN(const bool bias, reader_.Bool("attention_bias", false));
      config_.qkv_bias = config_.o_bias = bias;
    }
    if (IsFamily("qwen2")) config_.qkv_bias = true;
    if (IsFamily("llama")) {
      ASSIGN_OR_RETURN(config_.mlp_bias, reader_.Bool("mlp_bias", false));
    }
    config_.qk_norm = IsFamily("qwen3");
    ASSIGN_OR_RETURN(const std::string old_name,
                     reader_.String("torch_dtype", ""));
    ASSIGN_OR_RETURN(config_.dtype, reader_.String("dtype", old_name));
    return absl::OkStatus();
  }

  absl::Status ParseRope();
  absl::Status ParseRopeScaling(JsonReader& rope, absl::string_view key,
                                const std::string& type);
  absl::Status ParseLlama3(JsonReader& rope);
  absl::Status ParseYarn(JsonReader& rope);

  // Which layers have a window. transformers 5 also writes the outcome as
  // "layer_types".
  absl::Status ParseWindows() {
    const size_t layers = static_cast<size_t>(config_.num_layers);
    config_.sliding_window.assign(layers, 0);
    if (IsFamily("llama")) return absl::OkStatus();

    constexpr int64_t kDefaultWindow = 4096;
    bool is_on = IsFamily("mistral") && !IsNull("sliding_window");
    size_t from_layer = 0;
    if (!IsFamily("mistral")) {
      ASSIGN_OR_RETURN(const bool use,
                       reader_.Bool("use_sliding_window", false));
      is_on = use && !IsNull("sliding_window");
      ASSIGN_OR_RETURN(const int64_t from,
                       reader_.Int("max_window_layers", 28, 0, kMaxLayers));
      from_layer = std::min(layers, static_cast<size_t>(from));
    }
    ASSIGN_OR_RETURN(
        const int64_t window,
        reader_.Int("sliding_window", kDefaultWindow, is_on ? 1 : 0,
                    std::numeric_limits<int32_t>::max()));
    if (!is_on) return absl::OkStatus();
    std::fill(config_.sliding_window.begin() +
                  static_cast<std::ptrdiff_t>(from_layer),
              config_.sliding_window.end(), window);
    return IsFamily("mistral") ? absl::OkStatus() : ApplyLayerTypes(window);
  }

  absl::Status ApplyLayerTypes(int64_t window) {
    const Json* types = reader_.Get("layer_types");
    if (types == nullptr) return absl::OkStatus();
    if (!types->is_array() ||
        types->items().size() != config_.sliding_window.size()) {
      return reader_.Error("layer_types",
                           absl::StrCat("is no list of num_hidden_layers ",
                                        config_.num_layers, " names"));
    }
    for (size_t i = 0; i < types->items().size(); ++i) {
      const Json& type = types->items()[i];
      if (type == Json("full_attention")) {
        config_.sliding_window[i] = 0;
      } else if (type == Json("sliding_attention")) {
        config_.sliding_window[i] = window;
      } else {
        return Unsupported("layer_types",
                           absl::StrCat("has ", Escape(type.Dump(), 80),
                                        ", supported: \"full_attention\", "
                                        "\"sliding_attention\""));
      }
    }
    return absl::OkStatus();
  }

  const Json& root_;
  JsonReader reader_;
  Family family_ = kFamilies[0];
  ModelConfig config_;
};

// rope_scaling (the older key) wins over rope_parameters, and what stands
// inside wins over the top-level rope_theta.
absl::Status Parser::ParseRope() {
  ASSIGN_OR_RETURN(
      config_.rope.theta,
      reader_.Double("rope_theta", 10000, kMinRopeTheta, kMaxRopeTheta));
  const absl::string_view key = reader_.Get("rope_scaling") != nullptr
                                    ? "rope_scaling"
                                    : "rope_parameters";
  const Json* inner = reader_.Get(key);
  if (inner == nullptr) return absl::OkStatus();
  if (!inner->is_object()) {
    return reader_.Error(
        key, absl::StrCat("is ", inner->TypeName(), ", expected an object"));
  }
  for (const Json::Member& member : inner->members()) {
    if (member.second.is_object()) {
      return Unsupported(key, absl::StrCat("has different parameters per layer "
                                           "type (",
                                           Quote(member.first), ")"));
    }
  }
  JsonReader rope(*inner, absl::StrCat("config.json ", key));
  ASSIGN_OR_RETURN(config_.rope.theta,
                   rope.Double("rope_theta", config_.rope.theta, kMinRopeTheta,
                               kMaxRopeTheta));
  ASSIGN_OR_RETURN(const std::string old_type, rope.String("type", "default"));
  ASSIGN_OR_RETURN(const std::string type, rope.String("rope_type", old_type));
  ASSIGN_OR_RETURN(const double rotary,
                   rope.Double("partial_rotary_factor", 1, 0, 1));
  if (rotary != 1) {
    return Unsupported(key, absl::StrCat("has partial_rotary_factor ", rotary,
                                         ", supported: 1"));
  }
  return ParseRopeScaling(rope, key, type);
}

absl::Status Parser::ParseRopeScaling(JsonReader& rope, absl::string_view key,
                                      const std::string& type) {
  if (type == "default") return absl::OkStatus();
  if (type == "linear") {
    config_.rope.kind = RopeConfig::Kind::kLinear;
  } else if (type == "llama3") {
    config_.rope.kind = RopeConfig::Kind::kLlama3;
  } else if (type == "yarn") {
    config_.rope.kind = RopeConfig::Kind::kYarn;
  } else {
    return Unsupported(
        key, absl::StrCat("has rope_type ", Quote(type),
                          ", supported: \"default\", \"linear\", \"llama3\", "
                          "\"yarn\""));
  }
  RETURN_IF_ERROR(rope.Require("factor"));
  // Below 1 nothing is stretched; transformers only warns.
  ASSIGN_OR_RETURN(config_.rope.factor,
                   rope.Double("factor", 1, 1e-3, kMaxRopeFactor));
  if (config_.rope.kind == RopeConfig::Kind::kLlama3) return ParseLlama3(rope);
  if (config_.rope.kind == RopeConfig::Kind::kYarn) return ParseYarn(rope);
  return absl::OkStatus();
}

absl::Status Parser::ParseLlama3(JsonReader& rope) {
  RopeConfig& out = config_.rope;
  for (const char* key : {"low_freq_factor", "high_freq_factor",
                          "original_max_position_embeddings"}) {
    RETURN_IF_ERROR(rope.Require(key));
  }
  ASSIGN_OR_RETURN(out.low_freq_factor,
                   rope.Double("low_freq_factor", 1, 1e-6, kMaxRopeFactor));
  ASSIGN_OR_RETURN(out.high_freq_factor,
                   rope.Double("high_freq_factor", 4, 1e-6, kMaxRopeFactor));
  if (out.high_freq_factor <= out.low_freq_factor) {
    return rope.Error("high_freq_factor",
                      absl::StrCat("is ", out.high_freq_factor,
                                   ", expected more than low_freq_factor ",
                                   out.low_freq_factor));
  }
  ASSIGN_OR_RETURN(
      out.original_max_position,
      rope.Int("original_max_position_embeddings", 0, 1, kMaxPosition));
  return absl::OkStatus();
}

absl::Status Parser::ParseYarn(JsonReader& rope) {
  RopeConfig& out = config_.rope;
  ASSIGN_OR_RETURN(out.original_max_position,
                   rope.Int("original_max_position_embeddings",
                            config_.max_position, 1, kMaxPosition));
  ASSIGN_OR_RETURN(out.beta_fast,
                   rope.Double("beta_fast", 32, 1e-3, kMaxRopeFactor));
  ASSIGN_OR_RETURN(out.beta_slow,
                   rope.Double("beta_slow", 1, 1e-3, kMaxRopeFactor));
  ASSIGN_OR_RETURN(out.truncate, rope.Bool("truncate", true));
  ASSIGN_OR_RETURN(const double mscale, rope.Double("mscale", 0, 0, 1e3));
  ASSIGN_OR_RETURN(const double mscale_all,
                   rope.Double("mscale_all_dim", 0, 0, 1e3));
  const auto magnitude = [&](double scale) {
    return out.factor <= 1 ? 1 : 0.1 * scale * std::log(out.factor) + 1;
  };
  const double by_default = mscale != 0 && mscale_all != 0
                                ? magnitude(mscale) / magnitude(mscale_all)
                                : magnitude(1);
  ASSIGN_OR_RETURN(out.attention_factor,
                   rope.Double("attention_factor", by_default, 1e-6, 1e6));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::Parse(absl::string_view text) {
  absl::StatusOr<Json> root = Json::Parse(text);
  if (!root.ok()) return Annotate(root.status(), "config.json");
  if (!root->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "config.json is ", root->TypeName(), ", expected an object"));
  }
  return Parser(*root).Parse();
}

}  // namespace lorikeet
