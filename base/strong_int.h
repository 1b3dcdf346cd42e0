// A StrongInt is an integer id that does not mix with other ids by accident.
//
//   using BlockId = StrongInt<struct BlockIdTag, int32_t>;
//
// Pure.

#ifndef LORIKEET_BASE_STRONG_INT_H_
#define LORIKEET_BASE_STRONG_INT_H_

#include <compare>
#include <cstdint>
#include <utility>

namespace lorikeet {

template <typename Tag, typename T = int64_t>
class StrongInt {
 public:
  constexpr StrongInt() = default;
  constexpr explicit StrongInt(T value) : value_(value) {}
  constexpr T value() const { return value_; }
  friend constexpr auto operator<=>(StrongInt, StrongInt) = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongInt id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  T value_{};
};

}  // namespace lorikeet

#endif  // LORIKEET_BASE_STRONG_INT_H_
