#include "cli/linear_probe.h"

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace lorikeet {
namespace {

constexpr int64_t kFloat = sizeof(float);

// The widest input and output of a group.
int64_t MaxIn(const Model& model) {
  return std::max(
      model.in_dim(Projection::kDown),
      std::max(model.in_dim(Projection::kO), model.in_dim(Projection::kGate)));
}

int64_t MaxOut(const Model& model) {
  return std::max(
      model.out_dim(Projection::kGate),
      std::max(model.out_dim(Projection::kDown),
               model.out_dim(Projection::kQ) + model.out_dim(Projection::kK) +
                   model.out_dim(Projection::kV)));
}

}  // namespace

LinearProbe::LinearProbe(const Model& model, Ops& ops, int64_t rows)
    : model_(model),
      ops_(ops),
      rows_(rows),
      stream_(ops.NewStream()),
      x_(rows * MaxIn(model) * kFloat),
      y_(rows * MaxOut(model) * kFloat) {
  Rng rng(1);
  for (int64_t i = 0; i < rows * MaxIn(model); ++i) {
    x_.as<float>()[i] = static_cast<float>(rng.Uniform() - 0.5);
  }
}

void LinearProbe::Run() {
  const auto run = [&](int64_t layer, std::vector<Projection> projections,
                       Epilogue::Kind kind) {
    std::vector<LinearPart> parts;
    int64_t width = 0;
    for (const Projection p : projections) {
      LinearPart part;
      part.weight = model_.layer(layer).linears[static_cast<size_t>(p)].get();
      parts.push_back(part);
      width += part.weight->out_dim();
    }
    Epilogue epilogue;
    epilogue.kind = kind;
    if (kind == Epilogue::Kind::kSiluMul) width /= 2;
    const int64_t in = parts[0].weight->in_dim();
    const Tensor y = Tensor::F32(y_.as<float>(), rows_, width);
    epilogue.residual = y;
    ops_.LinearGroup(Tensor::F32(x_.as<float>(), rows_, in), parts, LoraBatch(),
                     epilogue, y, *stream_);
  };
  for (int64_t layer = 0; layer < model_.config().num_layers; ++layer) {
    run(layer, {Projection::kQ, Projection::kK, Projection::kV},
        Epilogue::Kind::kStore);
    run(layer, {Projection::kO}, Epilogue::Kind::kResidual);
    run(layer, {Projection::kGate, Projection::kUp}, Epilogue::Kind::kSiluMul);
    run(layer, {Projection::kDown}, Epilogue::Kind::kResidual);
  }
}

}  // namespace lorikeet
