// A small base model and PEFT directories for it, made for tests.

#ifndef LORIKEET_TESTS_ADAPTERS_TEST_ADAPTER_H_
#define LORIKEET_TESTS_ADAPTERS_TEST_ADAPTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "adapters/adapter_store.h"
#include "adapters/adapter_weights.h"
#include "model/config.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet::testing {

// 2 layers, hidden 8, 2 heads of 4 over 1 kv head, intermediate 12.
ModelConfig SmallModel();
// The same as the base of a store; `seed` makes its fingerprint.
AdapterStore::Base SmallBase(int seed = 1);

// q_proj of both layers at rank 2, every element of A and B `value`.
std::vector<TestTensor> SmallTensors(float value, DType dtype = DType::kF32);
// {"peft_type": "LORA", "r": 2, ...} with `extra` members ("\"a\": 1, ...").
std::string SmallConfig(absl::string_view extra = "");
// Writes such an adapter to `dir` and returns it. Other value, other digest.
std::string WriteAdapter(const std::string& dir, float value,
                         absl::string_view extra_config = "");

// Weights of `bytes` bytes with one module, as a store would have read them.
std::shared_ptr<const AdapterWeights> FakeWeights(int64_t bytes);

// tenant "default", version 1.
AdapterKey Key(absl::string_view name);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_ADAPTERS_TEST_ADAPTER_H_
