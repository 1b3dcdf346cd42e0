#include "train/parameter_set.h"

#include <utility>

#include "base/status.h"

namespace lorikeet {

ParameterSet::ParameterSet(std::vector<ParameterShape> shapes, Ops& ops)
    : shapes_(std::move(shapes)), ops_(ops) {
  for (const ParameterShape& shape : shapes_) {
    offsets_.push_back(size_);
    size_ += shape.size();
  }
}

absl::StatusOr<std::unique_ptr<ParameterSet>> ParameterSet::Create(
    std::vector<ParameterShape> shapes, Ops& ops) {
  std::unique_ptr<ParameterSet> set(new ParameterSet(std::move(shapes), ops));
  RETURN_IF_ERROR(set->Allocate(set->values_, /*has_copy=*/true));
  RETURN_IF_ERROR(set->Allocate(set->gradients_, /*has_copy=*/false));
  RETURN_IF_ERROR(set->Allocate(set->first_moments_, /*has_copy=*/true));
  RETURN_IF_ERROR(set->Allocate(set->second_moments_, /*has_copy=*/true));
  const std::unique_ptr<Stream> stream = ops.NewStream();
  RETURN_IF_ERROR(set->Upload(*stream));
  return set;
}

absl::Status ParameterSet::Allocate(Array& array, bool has_copy) {
  ASSIGN_OR_RETURN(array.memory, ops_.Allocate(size_bytes()));
  array.operators = static_cast<float*>(array.memory->data());
  array.host = array.operators;
  if (ops_.is_on_host()) return absl::OkStatus();
  array.copy = Buffer(has_copy ? size_bytes() : 0);
  array.host = array.copy.as<float>();
  return absl::OkStatus();
}

void ParameterSet::ClearGradients(TrainOps& train, Stream& stream) {
  train.Clear(Tensor::F32(gradients_.operators, 1, size_), stream);
}

absl::Status ParameterSet::Upload(Stream& stream) {
  if (ops_.is_on_host()) return absl::OkStatus();
  for (const Array* array : {&values_, &first_moments_, &second_moments_}) {
    ops_.CopyIn(array->host, array->operators, size_bytes(), stream);
  }
  return stream.Sync();
}

absl::Status ParameterSet::Download(Stream& stream) {
  if (ops_.is_on_host()) return absl::OkStatus();
  for (const Array* array : {&values_, &first_moments_, &second_moments_}) {
    ops_.CopyOut(array->operators, array->host, size_bytes(), stream);
  }
  return stream.Sync();
}

}  // namespace lorikeet
