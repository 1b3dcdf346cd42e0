#include "tests/adapters/test_adapter.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "adapters/peft_reader.h"
#include "base/file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {

ModelConfig SmallModel() {
  ModelConfig model;
  model.architecture = "LlamaForCausalLM";
  model.model_type = "llama";
  model.vocab_size = 16;
  model.hidden_size = 8;
  model.intermediate_size = 12;
  model.num_layers = 2;
  model.num_heads = 2;
  model.num_kv_heads = 1;
  model.head_dim = 4;
  model.max_position = 64;
  model.sliding_window = {0, 0};
  return model;
}

AdapterStore::Base SmallBase(int seed) {
  return {SmallModel(), DigestOf(absl::StrCat("base ", seed))};
}

std::vector<TestTensor> SmallTensors(float value, DType dtype) {
  std::vector<TestTensor> tensors;
  for (int layer = 0; layer < 2; ++layer) {
    const std::string module = absl::StrCat("base_model.model.model.layers.",
                                            layer, ".self_attn.q_proj");
    tensors.push_back(MakeConstantTensor(absl::StrCat(module, ".lora_A.weight"),
                                         dtype, {2, 8}, value));
    tensors.push_back(MakeConstantTensor(absl::StrCat(module, ".lora_B.weight"),
                                         dtype, {8, 2}, value));
  }
  return tensors;
}

std::string SmallConfig(absl::string_view extra) {
  return absl::StrCat(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, )",
                      R"("target_modules": ["q_proj"])",
                      extra.empty() ? "" : ", ", extra, "}");
}

std::string WriteAdapter(const std::string& dir, float value,
                         absl::string_view extra_config) {
  std::filesystem::create_directories(dir);
  WriteTestFile(JoinPath(dir, kAdapterConfigFile), SmallConfig(extra_config));
  WriteTestFile(JoinPath(dir, kAdapterModelFile),
                SafetensorsBytes(SmallTensors(value)));
  return dir;
}

std::shared_ptr<const AdapterWeights> FakeWeights(int64_t bytes) {
  auto weights = std::make_shared<AdapterWeights>();
  weights->size_bytes = bytes;
  // Rank 1, f32: A and B have half of the bytes each.
  const int64_t size = bytes / 8;
  Buffer a(size * 4), b(size * 4);
  LoraModule module;
  module.rank = 1;
  module.scaling = 1;
  module.a = ConstTensor(a.data(), DType::kF32, 1, size, size);
  module.b = ConstTensor(b.data(), DType::kF32, size, 1, 1);
  weights->modules.push_back(module);
  weights->storage.push_back(std::move(a));
  weights->storage.push_back(std::move(b));
  return weights;
}

AdapterKey Key(absl::string_view name) {
  return AdapterKey{std::string(kDefaultTenant), std::string(name), 1,
                    DigestOf(name)};
}

}  // namespace lorikeet::testing
