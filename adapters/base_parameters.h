// The parameters of a base model by Hugging Face's names: what an adapter may
// bring a new value of.
//
// Pure.

#ifndef LORIKEET_ADAPTERS_BASE_PARAMETERS_H_
#define LORIKEET_ADAPTERS_BASE_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/linear_id.h"
#include "model/config.h"

namespace lorikeet {

struct BaseParameter {
  enum class Kind { kWeight, kBias, kNorm };
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Kind kind = Kind::kWeight;
  LinearId linear;  // kWeight, kBias
  NormId norm;      // kNorm
  int64_t rows = 1;
  int64_t cols = 0;  // vectors are [1, cols]

  // "model.layers.0.self_attn.q_proj.weight"
  std::string name() const;
  // As in a file: [rows, cols], or [cols] of a vector.
  std::vector<int64_t> shape() const;
};

// All of them; lm_head is there too where it is tied.
std::vector<BaseParameter> BaseParameters(const ModelConfig& model);

// Output and input size of a linear. The embedding's input is one-hot, but its
// matrix is stored as [vocab, hidden], like lm_head's.
int64_t OutDim(const ModelConfig& model, Projection p);
int64_t InDim(const ModelConfig& model, Projection p);

// "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head".
std::string NameOf(LinearId id);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_BASE_PARAMETERS_H_
