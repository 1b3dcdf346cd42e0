// The GenerateService is the use case "answer a prompt": it resolves the task,
// checks every field, tokenizes and hands the request to the engine; and the
// small calls around it.
//
// A task is the base model's name, or "[tenant/]name[@version]" of an adapter
// or alias; instead of a task several adapters may be named, each with a scale.
// An unknown name is an error, never a silent answer of the base.
//
// Thread-safe. Nothing waits; work grows with the length of the text only.

#ifndef LORIKEET_SERVER_FRONTEND_GENERATE_SERVICE_H_
#define LORIKEET_SERVER_FRONTEND_GENERATE_SERVICE_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "model/tokenizer/tokenizer.h"
#include "server/engine/engine.h"
#include "server/frontend/alias_monitor.h"
#include "server/frontend/generate_request.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

// One adapter that answers.
struct GenerationAdapter {
  AdapterKey key;
  float scale = 1;
};

// An admitted request.
struct Generation {
  std::vector<GenerationAdapter> adapters;  // empty = base model
  int32_t candidates = 1;
  std::shared_ptr<TokenStream> stream;
};

// Something that may stand in GenerateInput::task.
struct ModelEntry {
  std::string id;
  std::string root;    // where the weights came from; empty = an upload
  std::string parent;  // id of the base model; empty for the base itself
  absl::Time create_time;
};

struct TokenizeInput {
  std::string task;
  std::string text;
  bool omit_special_tokens = false;
  bool parse_special_tokens = false;
};

class GenerateService {
 public:
  // `tokenizer` may be null: then prompts are token ids. `monitor` may be null:
  // then aliases have no shadow and no rule. All must outlive this.
  GenerateService(const ModelInfo& model, const Tokenizer* tokenizer,
                  AdapterStore& adapters, Engine& engine,
                  AliasMonitor* monitor);

  const ModelInfo& model() const { return model_; }

  // Admits a request.
  // Errors: INVALID_ARGUMENT naming field, value and limit; NOT_FOUND /
  // ADAPTER_NOT_FOUND; FAILED_PRECONDITION / ADAPTER_INCOMPATIBLE or
  // TOKENIZER_MISSING; RESOURCE_EXHAUSTED / QUEUE_FULL, or DEVICE_FULL if
  // adapters to sum are larger than the device; UNAVAILABLE / SERVER_DRAINING.
  absl::StatusOr<Generation> Generate(const GenerateInput& input);

  // Errors: as Generate.
  absl::StatusOr<std::vector<Token>> Tokenize(const TokenizeInput& input);
  absl::StatusOr<std::string> Detokenize(const std::string& task,
                                         const std::vector<uint32_t>& ids,
                                         bool skip_special_tokens);
  // Bytes of one token, for logprobs; empty without a tokenizer.
  std::string TokenBytes(Token token) const;

  // The base first, then usable adapters and aliases by name.
  std::vector<ModelEntry> ListModels();

 private:
  // No version = the base model. `key` chooses between the targets of an alias;
  // `field` is what messages call `task`.
  absl::StatusOr<Route> ResolveTask(const std::string& task,
                                    const std::string& key,
                                    const std::string& field = "task");
  // Of a composition. `merge_policy` is the last adapter's; of several it means
  // nothing.
  absl::StatusOr<std::vector<RequestAdapter>> ResolveParts(
      const GenerateInput& input, std::optional<MergePolicy>* merge_policy);
  absl::Status CheckFitsDevice(std::span<const RequestAdapter> adapters);
  absl::StatusOr<std::vector<Token>> Encode(const std::string& field,
                                            const std::string& text,
                                            bool omit_special_tokens,
                                            bool parse_special_tokens) const;
  absl::StatusOr<std::vector<Token>> EncodePrompt(
      const GenerateInput& input) const;

  const ModelInfo& model_;
  const Tokenizer* const tokenizer_;
  AdapterStore& adapters_;
  Engine& engine_;
  AliasMonitor* const monitor_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_GENERATE_SERVICE_H_
