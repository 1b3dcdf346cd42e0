// A RopeTable gives the cosines and sines of rotary position embedding.
//
// Rows depend on the position alone: angles are computed in double from
// frequencies in double, then rounded once to f32. The table grows to the
// largest position asked for. Engine thread only.

#ifndef LORIKEET_MODEL_ROPE_H_
#define LORIKEET_MODEL_ROPE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/paged_kv.h"
#include "model/config.h"

namespace lorikeet {

class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  // Writes the row of each row of `sequences` to cos and sin
  // [rows, head_dim / 2], times the attention factor.
  // REQUIRES: sequences ascend by row without gap from row 0.
  void Fill(std::span<const SequenceRows> sequences, float* cos, float* sin);

 private:
  void GrowTo(int64_t positions);

  const std::vector<double> frequencies_;  // [head_dim / 2]
  const double attention_factor_;
  int64_t positions_ = 0;
  std::vector<float> cos_, sin_;  // [positions_, head_dim / 2]
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_ROPE_H_
