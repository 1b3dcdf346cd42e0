// A ParameterSet is the tensors that a job trains, with their gradients and
// the optimizer's two moments: four arrays of f32, in which the tensors lie one
// after the other, so that norm and update are one call over all of them. They
// lie where a backend's operators work; on a device the host has a copy of what
// it reads and writes.
//
// Thread-compatible. Tensors stay where they are until destruction.

#ifndef LORIKEET_TRAIN_PARAMETER_SET_H_
#define LORIKEET_TRAIN_PARAMETER_SET_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"
#include "kernels/train_ops.h"

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
  // In memory of `ops`, which outlives this. Values and moments are zero at
  // first; gradients are not defined before ClearGradients.
  // Errors: RESOURCE_EXHAUSTED naming the bytes.
  static absl::StatusOr<std::unique_ptr<ParameterSet>> Create(
      std::vector<ParameterShape> shapes, Ops& ops);

  const std::vector<ParameterShape>& shapes() const { return shapes_; }
  // Number of trained numbers.
  int64_t size() const { return size_; }

  // ---- where the operators work ----

  // [rows, cols] of tensor `i`.
  Tensor value(size_t i) const { return View(values_.operators, i); }
  Tensor gradient(size_t i) const { return View(gradients_.operators, i); }
  std::span<float> values() const { return All(values_.operators); }
  std::span<float> gradients() const { return All(gradients_.operators); }
  std::span<float> first_moments() const {
    return All(first_moments_.operators);
  }
  std::span<float> second_moments() const {
    return All(second_moments_.operators);
  }

  void ClearGradients(TrainOps& train, Stream& stream);

  // ---- where the host reads and writes: a copy on a device, else the same
  // ----

  Tensor host_value(size_t i) const { return View(values_.host, i); }
  std::span<float> host_values() const { return All(values_.host); }
  std::span<float> host_first_moments() const {
    return All(first_moments_.host);
  }
  std::span<float> host_second_moments() const {
    return All(second_moments_.host);
  }
  // Copy values and moments to the device, and back. Errors: INTERNAL.
  absl::Status Upload(Stream& stream);
  absl::Status Download(Stream& stream);

 private:
  struct Array {
    std::unique_ptr<Memory> memory;
    float* operators = nullptr;
    Buffer copy;  // empty on the host
    float* host = nullptr;
  };

  ParameterSet(std::vector<ParameterShape> shapes, Ops& ops);
  // `has_copy`: the host reads or writes it.
  absl::Status Allocate(Array& array, bool has_copy);
  Tensor View(float* array, size_t i) const {
    return Tensor::F32(array + offsets_[i], shapes_[i].rows(),
                       shapes_[i].cols());
  }
  std::span<float> All(float* array) const {
    return {array, static_cast<size_t>(size_)};
  }
  int64_t size_bytes() const {
    return size_ * static_cast<int64_t>(sizeof(float));
  }

  const std::vector<ParameterShape> shapes_;
  Ops& ops_;
  std::vector<int64_t> offsets_;
  int64_t size_ = 0;
  Array values_, gradients_, first_moments_, second_moments_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_PARAMETER_SET_H_
