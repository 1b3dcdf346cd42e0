// Any bytes as config.json and generation_config.json: a status, or sizes that
// a loader may multiply without overflow.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "model/config.h"
#include "model/generation_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  GenerationConfig::Parse(text).IgnoreError();
  const auto config = ModelConfig::Parse(text);
  if (!config.ok()) return 0;
  CHECK(config->num_layers >= 1 && config->vocab_size >= 1);
  CHECK_EQ(config->num_heads % config->num_kv_heads, 0);
  CHECK_EQ(config->sliding_window.size(),
           static_cast<size_t>(config->num_layers));
  int64_t bytes = 0;
  CHECK(!__builtin_mul_overflow(config->hidden_size,
                                config->intermediate_size * 3, &bytes));
  CHECK(!__builtin_mul_overflow(bytes, config->num_layers * 8, &bytes));
  for (const double f :
       RopeInverseFrequencies(config->rope, config->head_dim)) {
    CHECK(std::isfinite(f) && f >= 0);
  }
  return 0;
}
