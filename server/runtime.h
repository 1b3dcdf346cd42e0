// A Runtime is a loaded model with everything that serves it, wired together:
// threads, operators, weights, tokenizer, adapters, engine. What `serve`,
// `run` and `bench engine` have in common.
//
// Members are destroyed in reverse order: the engine's thread ends first.

#ifndef LORIKEET_SERVER_RUNTIME_H_
#define LORIKEET_SERVER_RUNTIME_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "adapters/adapter_store.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "server/engine/engine.h"
#include "server/frontend/golden_gate.h"
#include "server/options.h"

namespace lorikeet {

// How K and V are stored: as the option says, by default f32 on the host and
// bf16 on a device.
DType KvDType(const ServerOptions& options, const Ops& ops);

struct Runtime {
  SystemClock clock;
  PosixFileSystem fs;
  int max_loras = 0;  // as in the options
  int64_t max_lora_rank = 0;
  int64_t device_bytes = 0;  // before the model; 0 = on the host
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Ops> ops;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // null if the model has none
  std::unique_ptr<AdapterStore> adapters;
  std::unique_ptr<Engine> engine;

  // Loads the model and starts the engine; logs progress. A model directory
  // without tokenizer.json is accepted: then prompts are token ids.
  // Errors: as Model::Load, Tokenizer::Load, AdapterStore::Open,
  // Engine::Create.
  static absl::StatusOr<std::unique_ptr<Runtime>> Create(
      const ServerOptions& options);

  // The same without adapters and engine: `bench engine` has its own loop.
  static absl::StatusOr<std::unique_ptr<Runtime>> CreateModelOnly(
      const ServerOptions& options);
};

// Registers the directory `path`, which the operator named on the command line
// and which therefore may lie anywhere, as the newest version of `name`; the
// same content as before is nothing to do. Its golden prompts have to pass if
// there is a `gate`.
// Errors: as AdapterStore::Register and GoldenGate::Check.
absl::Status RegisterFromCommandLine(AdapterStore& adapters, GoldenGate* gate,
                                     const std::string& name,
                                     const std::string& path);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_RUNTIME_H_
