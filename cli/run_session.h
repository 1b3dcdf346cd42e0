// A RunSession answers the lines of one `lorikeet run`: it submits requests,
// carries out operations on adapters between them, and prints results in the
// order of the input. All requests share batches.
//
// One thread.

#ifndef LORIKEET_CLI_RUN_SESSION_H_
#define LORIKEET_CLI_RUN_SESSION_H_

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/json.h"
#include "base/mutex.h"
#include "cli/run_request.h"
#include "server/engine/engine.h"
#include "server/frontend/generate_service.h"
#include "server/frontend/golden_gate.h"
#include "server/runtime.h"

namespace lorikeet {

class RunSession {
 public:
  // `admit_seed`: the order in which requests between two operations are
  // submitted is shuffled. `out` gets one JSON line per good request.
  RunSession(Runtime& runtime, std::optional<uint64_t> admit_seed,
             std::FILE* out);
  ~RunSession();

  // Registers an adapter of the command line. Errors: as Register.
  absl::Status AddAdapter(const std::string& name, const std::string& path);

  // Takes the next line. Requests wait until Flush or an operation.
  // Errors: those of an operation, naming the adapter.
  absl::Status Add(int64_t line_number, RunLine line);

  // Submits what waits and returns when all is answered.
  void Finish();

  // Messages about requests that failed, one a line of input; in input order.
  const std::map<int64_t, std::string>& errors() const { return errors_; }

 private:
  struct Answer;
  class Notifier;

  void SubmitWaiting();
  void Submit(Answer& answer);
  absl::Status CarryOut(const RunOp& op);
  // Reads events until `done` holds.
  template <typename Predicate>
  void ReadUntil(Predicate done);
  void ReadEvents(Answer& answer);
  void Fail(Answer& answer, const absl::Status& status);
  void PrintReady();
  bool HasActive(const std::string& adapter) const;

  Runtime& runtime_;
  const std::optional<uint64_t> admit_seed_;
  std::FILE* const out_;
  ModelInfo model_;
  std::unique_ptr<GenerateService> service_;
  std::unique_ptr<GoldenGate> gate_;
  std::unique_ptr<Notifier> notifier_;
  std::vector<std::unique_ptr<Answer>> answers_;  // in input order
  std::vector<Answer*> waiting_;
  size_t num_printed_ = 0;
  int64_t num_active_ = 0;
  std::map<int64_t, std::string> errors_;
};

}  // namespace lorikeet

#endif  // LORIKEET_CLI_RUN_SESSION_H_
