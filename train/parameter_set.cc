#include "train/parameter_set.h"

#include <algorithm>
#include <utility>

namespace lorikeet {

ParameterSet::ParameterSet(std::vector<ParameterShape> shapes)
    : shapes_(std::move(shapes)) {
  for (const ParameterShape& shape : shapes_) {
    offsets_.push_back(size_);
    size_ += shape.size();
  }
  const int64_t bytes = size_ * static_cast<int64_t>(sizeof(float));
  values_ = Buffer(bytes);
  gradients_ = Buffer(bytes);
  first_moments_ = Buffer(bytes);
  second_moments_ = Buffer(bytes);
}

void ParameterSet::ClearGradients() { std::ranges::fill(gradients(), 0.0f); }

}  // namespace lorikeet
