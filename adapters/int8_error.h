// How far an adapter's update moves when A and B are kept in 8 bits
// (kernels/lora_int8.h).
//
// The error of a linear is |E x| / |B A x| with E = B' A' - B A, over some
// random inputs x ~ N(0, 1): an estimate of |E| / |B A| (Frobenius).
//
// Pure.

#ifndef LORIKEET_ADAPTERS_INT8_ERROR_H_
#define LORIKEET_ADAPTERS_INT8_ERROR_H_

#include <string>

#include "adapters/adapter_weights.h"

namespace lorikeet {

struct Int8Error {
  double overall = 0;        // of all linears together, each with its scaling
  double worst = 0;          // of one linear
  std::string worst_module;  // empty if nothing changes
};

// The same adapter gives the same figures.
Int8Error MeasureInt8Error(const AdapterWeights& weights);

// One line for people.
std::string DescribeInt8Error(const Int8Error& error);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_INT8_ERROR_H_
