// A LinearProbe runs the groups of linears of every layer and nothing else, to
// measure what the linears alone reach.
//
// Single-threaded.

#ifndef LORIKEET_CLI_LINEAR_PROBE_H_
#define LORIKEET_CLI_LINEAR_PROBE_H_

#include <memory>

#include "kernels/ops.h"
#include "model/model.h"

namespace lorikeet {

class LinearProbe {
 public:
  // Both outlive this. `rows` rows of x, random.
  LinearProbe(const Model& model, Ops& ops, int64_t rows);

  // q|k|v, o, gate|up and down of every layer, once.
  void Run();

 private:
  const Model& model_;
  Ops& ops_;
  const int64_t rows_;
  std::unique_ptr<Stream> stream_;
  Buffer x_, y_;
};

}  // namespace lorikeet

#endif  // LORIKEET_CLI_LINEAR_PROBE_H_
