// A Lengths says how many tokens a prompt or an answer has: always the same
// number, or uniform over a range.
//
// Value type.

#ifndef LORIKEET_LOADGEN_LENGTHS_H_
#define LORIKEET_LOADGEN_LENGTHS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/random.h"

namespace lorikeet {

class Lengths {
 public:
  // Always `length`. REQUIRES: length >= 1.
  explicit Lengths(uint32_t length);
  // Parses "128" or "64-256" (both ends included).
  // Errors: INVALID_ARGUMENT naming the text.
  static absl::StatusOr<Lengths> Parse(absl::string_view text);

  uint32_t min() const { return min_; }
  uint32_t max() const { return max_; }
  uint32_t Sample(Rng& rng) const;
  // As Parse takes it.
  std::string ToString() const;

 private:
  Lengths(uint32_t min, uint32_t max) : min_(min), max_(max) {}
  uint32_t min_;
  uint32_t max_;
};

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_LENGTHS_H_
