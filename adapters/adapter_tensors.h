// The tensors that an adapter's configuration asks of its file, and their
// reading: every tensor of the file is one of these, every one of these is in
// the file, or the load fails with the tensor's name.
//
// One thread.

#ifndef LORIKEET_ADAPTERS_ADAPTER_TENSORS_H_
#define LORIKEET_ADAPTERS_ADAPTER_TENSORS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/adapter_weights.h"
#include "adapters/base_weights.h"
#include "adapters/peft_config.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace lorikeet {

class AdapterTensors {
 public:
  // Lists what `peft` asks for. `weights` has its modules with their ranks; it
  // gets its saved parameters and replaced rows, still without values.
  //
  // Errors: INVALID_ARGUMENT or UNIMPLEMENTED naming the key of the
  // configuration.
  static absl::StatusOr<AdapterTensors> List(const PeftConfig& peft,
                                             const ModelConfig& model,
                                             AdapterWeights* weights);

  // Fills in the values. `dtype` stores A and B as that type (nullopt = as in
  // the file). Copies of base weights are compared with `base`; if that is null
  // there is a warning.
  //
  // Errors: INVALID_ARGUMENT naming the tensor.
  absl::Status Read(const SafetensorsFile& file, std::optional<DType> dtype,
                    const BaseWeights* base);

 private:
  struct Item {
    std::string name;  // without "base_model.model."
    std::vector<int64_t> shape;
    const char* meaning = "";  // of the shape: "rank, in"
    enum class Storage { kAdapter, kF32, kAsInFile };
    Storage storage = Storage::kAdapter;
    ConstTensor* to = nullptr;  // null: a copy of the base weight `copy_of`
    LinearId copy_of;
    const SafetensorsEntry* entry = nullptr;
  };

  AdapterTensors(const PeftConfig& peft, const ModelConfig& model,
                 AdapterWeights* weights)
      : peft_(peft), model_(model), weights_(weights) {}

  absl::Status ListModule(LoraModule* module);
  absl::Status ListParameters();
  absl::Status ListTrainableTokens();
  absl::StatusOr<LinearId> FindTokensModule(const TrainableTokens& tokens);
  absl::Status CheckIsFree(LinearId id);
  void Add(Item item) { items_.push_back(std::move(item)); }
  bool IsSaved(const BaseParameter& parameter) const;
  bool IsAdapted(LinearId id) const;

  absl::Status Assign(const SafetensorsFile& file);
  absl::Status ReadItem(const Item& item, std::optional<DType> dtype,
                        const BaseWeights* base);
  absl::Status CheckTied() const;

  const PeftConfig& peft_;
  const ModelConfig& model_;
  AdapterWeights* const weights_;
  std::vector<Item> items_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_TENSORS_H_
