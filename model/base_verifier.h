// A BaseVerifier watches over the base weights in memory: nothing writes them
// after the load, and a checksum over all of them says so. The first pass, in
// the background right after the load, gives the number that all later ones
// must have; one is made at each interval, slowly, and one when asked.
//
// Thread-safe. The background pass reads some 100 MB a second.

#ifndef LORIKEET_MODEL_BASE_VERIFIER_H_
#define LORIKEET_MODEL_BASE_VERIFIER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "model/model.h"

namespace lorikeet {

// CRC-32C over the packed bytes and vectors of all layers, embedding, lm_head
// and final norm. Two models are equal only if theirs are.
uint32_t BaseChecksum(const Model& model);

class BaseVerifier {
 public:
  // `model` and `clock` must outlive this. `interval` between passes of the
  // background; zero: none but the first.
  BaseVerifier(const Model& model, const Clock& clock, absl::Duration interval);
  ~BaseVerifier();

  struct Report {
    bool is_intact = true;
    uint32_t expected = 0;
    uint32_t found = 0;  // now
    int64_t bytes = 0;   // that were read
    absl::Duration took;
    int64_t passes = 0;    // complete ones since the start, this included
    int64_t failures = 0;  // of them
  };
  // Makes a pass on the calling thread. Errors: UNIMPLEMENTED if the backend's
  // weights cannot be read.
  absl::StatusOr<Report> Verify();

 private:
  void Loop();
  // Waits between pieces of the background; false: the end has come.
  bool Pause(absl::Duration time);
  void Note(uint32_t found, Report* report);

  const Model& model_;
  const Clock& clock_;
  const absl::Duration interval_;
  std::vector<absl::string_view> parts_;
  int64_t bytes_ = 0;

  Mutex mu_;
  CondVar changed_;
  bool is_ending_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<uint32_t> expected_ ABSL_GUARDED_BY(mu_);
  int64_t passes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t failures_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<BackgroundThread> thread_;  // last: uses all of the above
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_BASE_VERIFIER_H_
