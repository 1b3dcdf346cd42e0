// The lines that `lorikeet run` reads: requests and operations on adapters.
//
// Plain data and its parser.

#ifndef LORIKEET_CLI_RUN_REQUEST_H_
#define LORIKEET_CLI_RUN_REQUEST_H_

#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "server/frontend/generate_request.h"

namespace lorikeet {

// {"id", "prompt" | "token_ids", "adapter" | "adapters", "max_tokens", sampling
//  fields, "logprobs", "prompt_logprobs", "return_logits", ...}; "adapters" is
//  [{"name", "scale"}, ...]
struct RunRequest {
  Json id;              // as given; or null
  GenerateInput input;  // neither task nor adapters = base model
};

// {"op": "load" | "unload" | "update" | "barrier", "adapter": NAME,
//  "path": DIR}
struct RunOp {
  enum class Kind { kLoad, kUnload, kUpdate, kBarrier };
  Kind kind = Kind::kBarrier;
  std::string adapter;
  std::string path;  // load: optional; update: required
};

using RunLine = std::variant<RunRequest, RunOp>;

// Parses one line. Errors: INVALID_ARGUMENT naming field, value and limit.
absl::StatusOr<RunLine> ParseRunLine(absl::string_view line);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_RUN_REQUEST_H_
