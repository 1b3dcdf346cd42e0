#include "server/model_info.h"

#include <algorithm>

namespace lorikeet {
namespace {

// generation_config.json asks for sampling only where it says do_sample; else
// its numbers are leftovers, as in transformers.
SamplingDefaults DefaultsOf(const GenerationConfig& g) {
  SamplingDefaults d;
  d.repetition_penalty = g.repetition_penalty.value_or(1);
  if (!g.do_sample.value_or(false)) return d;
  d.temperature = g.temperature.value_or(1);
  d.top_p = g.top_p.value_or(1);
  d.top_k = g.top_k.value_or(50);  // transformers' own default
  d.min_p = g.min_p.value_or(0);
  return d;
}

int64_t LongestTokenBytes(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return 0;
  size_t longest = 0;
  for (Token t = 0; t < tokenizer->vocab_size(); ++t) {
    longest = std::max(longest, tokenizer->TokenBytes(t).size());
  }
  return static_cast<int64_t>(longest);
}

}  // namespace

ModelInfo MakeModelInfo(const Runtime& runtime, const std::string& id) {
  const Model& model = *runtime.model;
  const EngineOptions& engine = runtime.engine->options();
  ModelInfo info;
  info.id = id;
  info.dir = model.dir();
  info.architecture = model.config().architecture;
  info.dtype = Name(model.dtype());
  info.backend = runtime.ops->Name();
  info.device = runtime.ops->Target();
  info.base_fingerprint = model.fingerprint().ToHex();
  info.program_version = LORIKEET_VERSION;
  info.vocab_size = model.config().vocab_size;
  info.max_model_len = engine.max_model_len;
  info.max_num_seqs = engine.max_num_seqs;
  info.max_loras = runtime.max_loras;
  info.max_lora_rank = runtime.max_lora_rank;
  info.max_token_bytes = LongestTokenBytes(runtime.tokenizer.get());
  info.eos_tokens = model.eos_tokens();
  info.sampling = DefaultsOf(model.generation_config());
  info.start_time = runtime.clock.WallNow();
  return info;
}

std::string DefaultModelName(const std::string& dir) {
  std::string path = dir;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace lorikeet
