// A GoldenGate runs the prompts of a golden.jsonl with a version and says
// whether its answers are the expected ones.
//
// They are ordinary greedy requests of the lowest priority, a few at a time:
// the others hardly notice. Thread-safe; waits for the engine.

#ifndef LORIKEET_SERVER_FRONTEND_GOLDEN_GATE_H_
#define LORIKEET_SERVER_FRONTEND_GOLDEN_GATE_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "base/clock.h"
#include "model/tokenizer/tokenizer.h"
#include "server/engine/engine.h"
#include "server/frontend/golden_file.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

class GoldenGate {
 public:
  // `tokenizer` may be null: then prompts are token ids. All must outlive this.
  GoldenGate(const ModelInfo& model, const Tokenizer* tokenizer, Engine& engine,
             const Clock& clock);

  // Errors: INVALID_ARGUMENT (reasons GOLDEN_INVALID, GOLDEN_MISMATCH) naming
  // the line; DEADLINE_EXCEEDED (reason GOLDEN_TIMEOUT); of the engine.
  absl::Status Check(const VersionRef& version, absl::string_view golden);

 private:
  absl::StatusOr<EngineRequest> MakeRequest(const VersionRef& version,
                                            const GoldenCase& golden) const;
  // Runs cases side by side.
  absl::Status CheckSome(const VersionRef& version,
                         std::span<const GoldenCase> cases,
                         absl::Duration deadline);

  const ModelInfo& model_;
  const Tokenizer* const tokenizer_;
  Engine& engine_;
  const Clock& clock_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_GOLDEN_GATE_H_
