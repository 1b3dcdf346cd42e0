// Writes .safetensors files for tests, right ones and, by hand, wrong ones.
//
// Pure.

#ifndef LORIKEET_TESTS_TESTING_SAFETENSORS_WRITER_H_
#define LORIKEET_TESTS_TESTING_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace lorikeet::testing {

struct TestTensor {
  std::string name;
  std::string dtype;  // as written in the file: "F32"
  std::vector<int64_t> shape;
  std::string bytes;
};

// Returns a tensor of `dtype` whose elements are `values`, rounded.
TestTensor MakeTensor(absl::string_view name, DType dtype,
                      std::vector<int64_t> shape,
                      const std::vector<float>& values);
// The same with every element `value`.
TestTensor MakeConstantTensor(absl::string_view name, DType dtype,
                              std::vector<int64_t> shape, float value);

// Returns the file; data in the order of `tensors`.
std::string SafetensorsBytes(const std::vector<TestTensor>& tensors);

// Writes `bytes` to `path`, or fails the test.
void WriteTestFile(const std::string& path, absl::string_view bytes);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_TESTING_SAFETENSORS_WRITER_H_
