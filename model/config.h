// A ModelConfig is what config.json says of a base model, checked.
//
// Families: Llama 2/3, Mistral, Qwen2/2.5, Qwen3, SmolLM2 (a Llama). Missing
// keys mean what they mean in transformers. Plain data.

#ifndef LORIKEET_MODEL_CONFIG_H_
#define LORIKEET_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/token.h"

namespace lorikeet {

// Rotary position embedding with its scaling.
struct RopeConfig {
  enum class Kind { kDefault, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kDefault;
  double theta = 10000;
  double factor = 1;                     // linear, llama3, yarn
  double low_freq_factor = 1;            // llama3
  double high_freq_factor = 4;           // llama3
  int64_t original_max_position = 0;     // llama3, yarn
  double beta_fast = 32, beta_slow = 1;  // yarn
  bool truncate = true;                  // yarn
  double attention_factor = 1;           // yarn: multiplies cos and sin
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  std::string model_type;    // "llama", "mistral", "qwen2", "qwen3"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position = 0;  // max_position_embeddings
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // Qwen3: RMSNorm of q and k per head
  RopeConfig rope;
  // Per layer: 0 = full attention, w > 0 = position i sees j > i - w.
  std::vector<int64_t> sliding_window;
  // "bfloat16", ...; informative, the tensors' own dtype counts.
  std::string dtype;
  std::vector<Token> eos_tokens;  // of config.json; generation_config wins

  int64_t q_dim() const { return num_heads * head_dim; }
  int64_t kv_dim() const { return num_kv_heads * head_dim; }

  // Parses the text of config.json.
  //
  // Errors: INVALID_ARGUMENT "config.json field ..." naming field, value and
  // limit; UNIMPLEMENTED naming an architecture or feature we do not have.
  static absl::StatusOr<ModelConfig> Parse(absl::string_view text);
};

// Frequencies of the rotary embedding: [head_dim / 2], double (section 4 of
// the sources in docs/ARCHITECTURE.md).
std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                           int64_t head_dim);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_CONFIG_H_
