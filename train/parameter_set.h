// A ParameterSet is the tensors that a job trains, with their gradients and
// the optimizer's two moments: four arrays of f32, in which the tensors lie one
// after the other, so that norm and update are one call over all of them.
//
// Thread-compatible. Tensors stay where they are until destruction.

#ifndef LORIKEET_TRAIN_PARAMETER_SET_H_
#define LORIKEET_TRAIN_PARAMETER_SET_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace lorikeet {

// What is trained, before there is memory for it.
struct ParameterShape {
  std::string name;            // as in the file that is written at the end
  std::vector<int64_t> shape;  // [rows, cols] or [cols]

  int64_t rows() const { return shape.size() == 2 ? shape[0] : 1; }
  int64_t cols() const { return shape.back(); }
  int64_t size() const { return rows() * cols(); }
};

class ParameterSet {
 public:
  // All is zero at first.
  explicit ParameterSet(std::vector<ParameterShape> shapes);

  const std::vector<ParameterShape>& shapes() const { return shapes_; }
  // Number of trained numbers.
  int64_t size() const { return size_; }

  // [rows, cols] of tensor `i`.
  Tensor value(size_t i) const { return View(values_, i); }
  Tensor gradient(size_t i) const { return View(gradients_, i); }

  std::span<float> values() const { return All(values_); }
  std::span<float> gradients() const { return All(gradients_); }
  std::span<float> first_moments() const { return All(first_moments_); }
  std::span<float> second_moments() const { return All(second_moments_); }

  void ClearGradients();

 private:
  Tensor View(const Buffer& buffer, size_t i) const {
    return Tensor::F32(buffer.as<float>() + offsets_[i], shapes_[i].rows(),
                       shapes_[i].cols());
  }
  std::span<float> All(const Buffer& buffer) const {
    return {buffer.as<float>(), static_cast<size_t>(size_)};
  }

  const std::vector<ParameterShape> shapes_;
  std::vector<int64_t> offsets_;
  int64_t size_ = 0;
  Buffer values_, gradients_, first_moments_, second_moments_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_PARAMETER_SET_H_
