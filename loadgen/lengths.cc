#include "loadgen/lengths.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// Beyond any context; keeps sums far from overflow.
constexpr uint32_t kMaxLength = 1 << 24;

bool ParseLength(absl::string_view text, uint32_t* length) {
  return absl::SimpleAtoi(text, length) && *length >= 1 &&
         *length <= kMaxLength;
}

}  // namespace

Lengths::Lengths(uint32_t length) : Lengths(length, length) {
  CHECK_GE(length, 1u);
}

absl::StatusOr<Lengths> Lengths::Parse(absl::string_view text) {
  const size_t dash = text.find('-');
  const bool is_range = dash != absl::string_view::npos;
  uint32_t min = 0;
  uint32_t max = 0;
  if (!ParseLength(text.substr(0, dash), &min) ||
      !ParseLength(is_range ? text.substr(dash + 1) : text, &max) ||
      min > max) {
    return absl::InvalidArgumentError(
        absl::StrCat("length ", Quote(text),
                     " is neither N nor MIN-MAX, in [1, ", kMaxLength, "]"));
  }
  return Lengths(min, max);
}

uint32_t Lengths::Sample(Rng& rng) const {
  if (min_ == max_) return min_;
  return min_ + static_cast<uint32_t>(rng.Below(uint64_t{max_} - min_ + 1));
}

std::string Lengths::ToString() const {
  return min_ == max_ ? absl::StrCat(min_) : absl::StrCat(min_, "-", max_);
}

}  // namespace lorikeet
